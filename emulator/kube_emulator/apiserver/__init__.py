"""An API server: an emulation of what operators, kubectl, Helm and controllers send.

One user, one process, memory only, loopback only. A request goes one way: `wire.request` reads the
path, `access` decides who may, `objects.resources` decides with `kinds` what is stored,
`objects.storage` numbers it and tells the watches, `wire.representation`, `wire.tables` and
`objects.watch` write the answer. It is not Kubernetes: what it lacks is answered with 501 by name,
and the conformance suite, which also runs on a real server, is the judge of every difference. Known
to differ: when a definition is created, what its rules name, give and cost is not checked, and
later it is enforced on what is invalid already; services get no addresses, nodes no taints.
"""
