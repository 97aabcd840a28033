"""What is left of an attempt that has ended: until when it is waited for, and when it is told to
go. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from finetune_contract.reasons import Reason
from finetune_operator.job.resources import POD
from finetune_operator.job.times import rfc3339, timestamp
from finetune_operator.judge.decision import LOOK_EVERY, Decision, Scene
from finetune_operator.judge.wording import attempt_end
from finetune_operator.observe.observed import Child, Pod

# Whoever deletes a pod may give it years, though whatever saves a checkpoint needs minutes.
LONGEST_GRACE = timedelta(hours=1)
# In which a garbage collector that works asks the pods of a workload that is gone to go.
COLLECTED = timedelta(minutes=1)
_MOST_NAMES = 3


def due(s: Scene, ended: datetime, live: Sequence[Pod]) -> datetime:
    """Return when all pods should have gone: none is cut off while it has its grace."""
    grace = timedelta(seconds=s.job.spec.run_policy.termination_grace_period_seconds)
    latest = ended + max(grace, LONGEST_GRACE)
    return max([ended + grace, *(min(pod.due, latest) for pod in live if pod.due)])


def given_up(s: Scene, ended: datetime, live: Sequence[Pod]) -> datetime:
    """Return when pods that do not go are waited for no more."""
    return due(s, ended, live) + timedelta(seconds=s.settings.fence_timeout_seconds)


def outlives(s: Scene, number: int) -> Decision | None:
    """Return the decision to wait before what makes an attempt's pods is made, for all that may run
    already, whatever status says of it, as a hand may have written; None if there is nothing to
    wait for, or no more."""
    stands = s.observed.workload(s.job.uid, number) is not None
    others = [p for p in s.observed.may_run() if not (stands and p.attempt == number)]
    fenced = {pod: _fenced(s, pod) for pod in others}
    live = [pod for pod, until in fenced.items() if until is None or s.now < until]
    if not live:
        return None
    last = s.attempts[-1] if s.attempts else None
    text = f"attempt {number} waits for pods that run"
    if last is not None and last.number != number:
        text = attempt_end(last)
    workload = s.observed.workload(s.job.uid, live[0].attempt)
    untils = [fenced[pod] for pod in live]
    until = max((u for u in untils if u is not None), default=None) if all(untils) else None
    waits = s.go_on(Reason.STOPPING, text + remains(workload, live, until), number)
    return replace(waits, after=LOOK_EVERY, confirm=True)


def _fenced(s: Scene, pod: Pod) -> datetime | None:
    """Return until when a pod is waited for; None for one that has not been asked to go."""
    workload = s.observed.workload(s.job.uid, pod.attempt)
    record = next((a for a in s.attempts if a.number == pod.attempt), None)
    ended = (timestamp(record.end_time) if record else None) or pod.deleted
    if ended is None or pod.due is None or (workload and not workload.deleting):
        return None
    return given_up(s, ended, [pod])


def remains(workload: Child | None, live: Sequence[Pod], until: datetime | None) -> str:
    """Return what is still there, in words that end a message: a finalizer may hold it. `until`
    is when it is waited for no more, once all was asked to go."""
    names = [f"{workload.kind} {workload.name}"] if workload and workload.deleting else []
    names += [f"pod {pod.name}" for pod in live]
    more = len(names) - _MOST_NAMES
    listed = ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
    bound = f", waited for until {rfc3339(until)}" if until and all(p.due for p in live) else ""
    return f"; still there: {listed}{bound}" if names else ""


def sent_off(s: Scene, decision: Decision) -> Decision:
    """Return the decision with the deletion of the pods that nobody else asks to go: their attempt
    is not under way, and what made them is gone or going. The garbage collector may be down; it
    leaves pods that were orphaned, and those of a workload which somebody's finalizer holds."""
    under_way = {a.number for a in decision.attempts if a.workload_uid and not a.end_time}
    lost = [
        (pod, _uncollected(s, decision, pod.attempt))
        for pod in (*s.observed.pods, *s.observed.kin)
        if pod.attempt not in under_way and not pod.finished and pod.due is None
        if _is_abandoned(s, pod)
    ]
    if not lost:
        return decision
    asked = tuple(_to_go(s, pod) for pod, left in lost if left <= timedelta())
    looks = [decision.after, *(left for _, left in lost if left > timedelta())]
    return replace(
        decision,
        delete=(*decision.delete, *asked),
        after=min((look for look in looks if look is not None), default=None),
        confirm=decision.confirm or bool(asked),
    )


def _uncollected(s: Scene, decision: Decision, number: int) -> timedelta:
    """Return how long the garbage collector may take yet; of what no record tells of, no more."""
    record = next((a for a in decision.attempts if a.number == number), None)
    since = timestamp(record.end_time or record.start_time) if record else None
    return since + COLLECTED - s.now if since else timedelta()


def _is_abandoned(s: Scene, pod: Pod) -> bool:
    """Tell whether what made a pod is gone, or is the job's own and goes. Where nobody can tell
    what made it, it may be whatever has the name."""
    named = [c for c in s.observed.children if c.workload and c.attempt == pod.attempt]
    if pod not in s.observed.kin:
        named = [c for c in named if c.owner_uid == s.job.uid]
    return all(c.owner_uid == s.job.uid and c.deleting for c in named)


def _to_go(s: Scene, pod: Pod) -> Child:
    return Child(POD, pod.name, pod.uid, s.job.uid, pod.attempt, deleting=False)
