"""What is left of an attempt that has ended: until when it is waited for, and its names. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from finetune_api.status import Attempt
from finetune_contract.reasons import Reason
from finetune_operator.job.names import attempt_name
from finetune_operator.job.times import timestamp
from finetune_operator.judge.decision import LOOK_EVERY, Decision, Scene
from finetune_operator.judge.wording import attempt_end
from finetune_operator.observe.observed import Child, Pod

# Whoever deletes a pod may give it years, though whatever saves a checkpoint needs minutes.
LONGEST_GRACE = timedelta(hours=1)
_MOST_NAMES = 3


def due(s: Scene, ended: datetime, live: Sequence[Pod]) -> datetime:
    """Return when all pods should have gone: none is cut off while it has its grace."""
    grace = timedelta(seconds=s.job.spec.run_policy.termination_grace_period_seconds)
    latest = ended + max(grace, LONGEST_GRACE)
    return max([ended + grace, *(min(pod.due, latest) for pod in live if pod.due)])


def may_be_its_own(s: Scene, attempt: Attempt) -> bool:
    """Tell whether there are pods which say that the attempt's workload made them, of which nobody
    can tell: its uid was not recorded before it went away."""
    maker = f"{s.backend.workload} {attempt_name(s.job.name, attempt.number)}"
    strays = s.observed.strays_of(attempt.number)
    return attempt.workload_uid is None and any(stray.owner == maker for stray in strays)


def outlives(s: Scene, last: Attempt) -> Decision | None:
    """Return the decision to wait for an attempt that runs though status says that it is over, as a
    hand may have written; None if there is nothing to wait for, or no more."""
    workload = s.observed.workload(s.job.uid, last.number)
    live = [p for p in s.observed.pods_of(last.number) if not p.over]
    ended = timestamp(last.end_time)
    assert ended is not None, "an attempt that is over has an end"
    fenced = due(s, ended, live) + timedelta(seconds=s.settings.fence_timeout_seconds)
    asked = workload.deleting if workload else all(p.due for p in live)
    if not live or (asked and s.now >= fenced):
        return None
    waits = s.go_on(Reason.STOPPING, attempt_end(last) + remains(workload, live))
    return replace(waits, after=LOOK_EVERY)


def remains(workload: Child | None, live: Sequence[Pod]) -> str:
    """Return what is still there, in words that end a message: a finalizer may hold it."""
    names = [f"{workload.kind} {workload.name}"] if workload and workload.deleting else []
    names += [f"pod {pod.name}" for pod in live]
    more = len(names) - _MOST_NAMES
    listed = ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
    return f"; still there: {listed}" if names else ""
