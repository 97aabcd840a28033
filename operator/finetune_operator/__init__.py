"""Turns FineTuneJobs into attempts and keeps them going until an adapter stands verified.

One reading direction: handlers -> controller -> reconcile -> what stands below and knows nothing of
each other: `cluster` (what is there), `judge` (what to do about it), `plan` (what is to be made).
All stand on `job`. Only `handlers` imports kopf and only `cluster` a Kubernetes client; what judges
and plans is pure and takes the time as an argument.
"""
