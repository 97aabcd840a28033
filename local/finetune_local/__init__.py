"""FineTuneJobs without a cluster of one's own: `finetune run`, the embedded cluster, the demo.

API server, collector, node, workloads and training-operator stand-in are separate; all but the
first are plain HTTP clients and run against any API server. Operator and trainer import nothing
of this.
"""
