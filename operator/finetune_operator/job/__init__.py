"""What a job's spec means, and what the objects made for it are called. Pure.

The ground floor: the cluster, the judging and the planning all stand on it.
"""
