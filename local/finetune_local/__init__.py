"""FineTuneJobs without a cluster of one's own: `finetune run`, the embedded cluster, the demo.

API server, collector, node, workloads and training-operator stand-in are separate; the last four are
plain HTTP clients and run against any API server. Nothing here is imported by operator or trainer.
"""
