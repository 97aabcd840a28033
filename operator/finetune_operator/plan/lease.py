"""The Lease that an attempt's rank 0 renews."""

from __future__ import annotations

from finetune_api.job import FineTuneJob
from finetune_operator.job.names import Object, child


def lease(job: FineTuneJob, attempt: int) -> Object:
    """Return it empty; everything in its spec is the trainer's."""
    return child(job, "coordination.k8s.io/v1", "Lease", attempt, spec={})
