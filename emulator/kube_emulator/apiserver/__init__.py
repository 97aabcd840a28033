"""The embedded cluster's API server: an emulation of what our operator, kubectl and Helm send.

One user, one process, memory only, loopback only. A request goes one way: `request` reads the
path, `authn` and `rbac` decide who may, `resources` (with `patches`, `apply`, `strategies`,
`definitions`) decides what is stored, `storage` numbers it and tells the watches, `representation`,
`tables` and `watch` write the answer. It is not Kubernetes: what it lacks is answered with 501 by
name, and `tests/kube`, which also runs on a real server, is the judge of every difference. Known to
differ: CEL types are not checked when a definition is created, services get no addresses, nodes no
taints, and disruption budgets do not hold up evictions.
"""
