"""The cluster as the operator sees it: its client, what the watches have shown, the work queue.

Knows kinds, names and labels, nothing of what a job needs or how it fares.
"""
