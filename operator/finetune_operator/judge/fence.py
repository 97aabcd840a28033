"""What is left of an attempt that has ended: until when it is waited for, and its names. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from finetune_operator.judge.decision import Scene
from finetune_operator.observe.observed import Child, Pod

# Whoever deletes a pod may give it years, though whatever saves a checkpoint needs minutes.
LONGEST_GRACE = timedelta(hours=1)
_MOST_NAMES = 3


def due(s: Scene, ended: datetime, live: Sequence[Pod]) -> datetime:
    """Return when all pods should have gone: none is cut off while it has its grace."""
    grace = timedelta(seconds=s.job.spec.run_policy.termination_grace_period_seconds)
    latest = ended + max(grace, LONGEST_GRACE)
    return max([ended + grace, *(min(pod.due, latest) for pod in live if pod.due)])


def remains(workload: Child | None, live: Sequence[Pod]) -> str:
    """Return what is still there, in words that end a message: a finalizer may hold it."""
    names = [f"{workload.kind} {workload.name}"] if workload and workload.deleting else []
    names += [f"pod {pod.name}" for pod in live]
    more = len(names) - _MOST_NAMES
    listed = ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
    return f"; still there: {listed}" if names else ""
