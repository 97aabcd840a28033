"""How a process gives up, for good, what a scoring function has no need of.

No network, no other processes, no files but Python's own libraries to read, bounded memory. Only
the standard library is imported here, and nothing after the process is confined.
"""
