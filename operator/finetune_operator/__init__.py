"""Turns FineTuneJobs into PyTorchJobs and keeps them going until an adapter stands verified.

One reading direction: handlers -> queue -> reconcile -> (parse, observe, decide, plan, status) ->
cluster. Only `handlers` imports kopf and only `cluster` a Kubernetes client; what decides is pure
and takes the time as an argument.
"""
