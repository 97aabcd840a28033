"""Conditions: set one and keep its transition time; read what they say. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from finetune_api.status import Condition, ConditionType, FineTuneJobStatus
from finetune_contract.reasons import Reason
from finetune_operator.job.times import rfc3339

Truth = Literal["True", "False", "Unknown"]


def condition(
    old: Sequence[Condition],
    kind: ConditionType,
    truth: Truth,
    reason: Reason,
    message: str,
    generation: int,
    now: datetime,
) -> Condition:
    """Return the condition; its transition time stays while its truth does."""
    before = next((c for c in old if c.type == kind and c.status == truth), None)
    return Condition(
        type=kind,
        status=truth,
        reason=reason,
        message=message,
        observed_generation=generation,
        last_transition_time=before.last_transition_time if before else rfc3339(now),
    )


def find(status: FineTuneJobStatus, kind: ConditionType) -> Condition | None:
    """Return the condition of a type; None if it is not there."""
    return next((c for c in status.conditions or () if c.type == kind), None)


def finished(status: FineTuneJobStatus) -> bool:
    """Return whether the job has succeeded or failed, after which it never runs again."""
    succeeded = find(status, ConditionType.SUCCEEDED)
    return succeeded is not None and succeeded.status != "Unknown"


def finished_time(status: FineTuneJobStatus) -> datetime:
    """Return when a finished job finished."""
    succeeded = find(status, ConditionType.SUCCEEDED)
    assert succeeded is not None, "a finished job has the condition"
    return datetime.fromisoformat(succeeded.last_transition_time)
