"""An emulation of Kubernetes on one machine: what real clients send, answered as a server would.

API server, garbage collector, workloads, node and a training-operator stand-in are processes of
their own; all but the first are plain HTTP clients, which run against any API server.
"""
