"""What is left of an attempt that has ended: until when it is waited for, and its names. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from finetune_contract.reasons import Reason
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


def outlives(s: Scene, number: int) -> Decision | None:
    """Return the decision to wait before what makes an attempt's pods is made, for all that may run
    already, whatever status says of it, as a hand may have written; None if there is nothing to
    wait for, or no more."""
    stands = s.observed.workload(s.job.uid, number) is not None
    others = [p for p in s.observed.may_run() if not (stands and p.attempt == number)]
    live = [p for p in others if not _is_fenced(s, p)]
    if not live:
        return None
    last = s.attempts[-1] if s.attempts else None
    text = f"attempt {number} waits for pods that run"
    if last is not None and last.number != number:
        text = attempt_end(last)
    workload = s.observed.workload(s.job.uid, live[0].attempt)
    waits = s.go_on(Reason.STOPPING, text + remains(workload, live), number)
    return replace(waits, after=LOOK_EVERY, confirm=True)


def _is_fenced(s: Scene, pod: Pod) -> bool:
    """Tell whether a pod was asked to go and waited for as long as one may."""
    workload = s.observed.workload(s.job.uid, pod.attempt)
    asked = workload.deleting if workload else pod.due is not None
    record = next((a for a in s.attempts if a.number == pod.attempt), None)
    ended = (timestamp(record.end_time) if record else None) or pod.deleted
    if ended is None or not asked:
        return False
    return s.now >= due(s, ended, [pod]) + timedelta(seconds=s.settings.fence_timeout_seconds)


def remains(workload: Child | None, live: Sequence[Pod]) -> str:
    """Return what is still there, in words that end a message: a finalizer may hold it."""
    names = [f"{workload.kind} {workload.name}"] if workload and workload.deleting else []
    names += [f"pod {pod.name}" for pod in live]
    more = len(names) - _MOST_NAMES
    listed = ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
    return f"; still there: {listed}" if names else ""
