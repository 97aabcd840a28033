"""What is to be written, in which order, and what all pods of a job share."""

from __future__ import annotations

from dataclasses import dataclass

from finetune_api.job import FineTuneJob
from finetune_operator.job.names import Object
from finetune_operator.plan.network_policy import network_policy
from finetune_operator.plan.service_account import service_account


@dataclass(frozen=True)
class Objects:
    """`prepared` are written side by side; `started` come after them, one by one and once."""

    prepared: tuple[Object, ...]
    started: tuple[Object, ...]


def shared(job: FineTuneJob) -> tuple[Object, ...]:
    """Return what the pods of any attempt, and the one that tries the rewards, need."""
    own_account = job.spec.workers.service_account_name is None
    return (*((service_account(job),) if own_account else ()), network_policy(job))
