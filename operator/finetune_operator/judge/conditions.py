"""What a status says by its conditions. Pure."""

from __future__ import annotations

from datetime import datetime

from finetune_api.status import Condition, ConditionType, FineTuneJobStatus


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
