"""The ServiceAccount of a job whose user named none."""

from __future__ import annotations

from finetune_api.job import FineTuneJob
from finetune_operator.job.names import Object, child


def service_account(job: FineTuneJob) -> Object:
    """Return it; its token is mounted by the pod template alone, into one container."""
    return child(job, "v1", "ServiceAccount", None, automountServiceAccountToken=False)
