"""What is observed of a job -> what to do about it, and what its status says. Pure.

Values in, values out: no I/O, no Kubernetes client, and `now` is an argument.
"""
