"""What follows where a job can not be judged, or what was decided can not be done. Pure.

A job that can not be judged, as its spec can not be read or every pass over it fails, says so; its
deadline and its suspension still hold. That rests on as little as it can, the stored spec and what
status says, for the rest is what failed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from finetune_api.status import Attempt, AttemptState, FineTuneJobStatus
from finetune_contract.reasons import Reason
from finetune_operator.job.errors import Stalled, Waiting
from finetune_operator.job.names import Object, attempt_of, is_child
from finetune_operator.job.resources import POD
from finetune_operator.job.stored import finished
from finetune_operator.job.times import rfc3339, timestamp
from finetune_operator.judge.decision import Course, Decision, Verdict
from finetune_operator.judge.pod_end import End
from finetune_operator.judge.retry import active_time, trained
from finetune_operator.judge.reward_check import check_refused
from finetune_operator.judge.status import unjudged_status
from finetune_operator.judge.wording import attempt_end, bounded, with_advice
from finetune_operator.observe.observed import Child
from finetune_operator.settings import Settings

REFUSED_AGAIN = timedelta(seconds=30)

_LONGEST = 10**12  # seconds; a longer deadline never comes
_LIVE = (AttemptState.STARTING, AttemptState.RUNNING)


@dataclass(frozen=True)
class Fallback:
    """The status to write, what must not run any more, and when to look again."""

    status: FineTuneJobStatus
    delete: tuple[Child, ...] = ()
    after: timedelta | None = None


def fall_back(
    body: Object,
    old: FineTuneJobStatus,
    children: Iterable[Object],
    why: Stalled | Waiting,
    now: datetime,
    workload: str,
) -> Fallback:
    """Return what follows for a job of this stored body and status; `workload` is the kind of what
    makes its pods."""
    if finished(old):
        return Fallback(old)
    course = Course.INVALID if isinstance(why, Stalled) else Course.PROGRESSING
    status = unjudged_status(old, course, why, body["metadata"]["generation"], now)
    left = _deadline_left(body, old, now)
    end = _end(body, left)
    if end is None:
        return Fallback(status, after=left)
    attempts = [_ended(a, end, now) if a.state in _LIVE else a for a in old.attempts or ()]
    recorded = {a.workload_uid for a in old.attempts or ()}  # whoever they are said to belong to
    makers = (b for b in children if b["kind"] in (workload, POD) and _is_live(body, b, recorded))
    return Fallback(
        status.model_copy(update={"attempts": attempts or None}),
        tuple(_child(b, body["metadata"]["uid"]) for b in makers),
    )


def hindered(
    decision: Decision, why: Stalled | Waiting, now: datetime, settings: Settings
) -> Decision:
    """Return the decision after its objects could not be made. A job that has trained waits, for
    what hinders it passes, and so does what is at work. Any other fails: at once if it would be
    refused again, else after the time that pods have to start."""
    final, since = isinstance(why, Stalled), _since(decision, now)
    left = since + timedelta(seconds=settings.start_timeout_seconds) - now if since else None
    if left is None or (left > timedelta() and not final):
        again = timedelta(seconds=why.after) if isinstance(why, Waiting) else REFUSED_AGAIN
        looks = [look for look in (again, left, decision.within) if look is not None]
        text = bounded(with_advice(why.message, why.reason))
        waits = Verdict(Course.PROGRESSING, why.reason, text)
        return replace(decision, verdict=waits, after=min(looks))
    late = End(Reason.START_TIMEOUT, f"{why.reason}: {why.message}")
    end = End(why.reason, why.message) if final else late
    if decision.run is None:
        return check_refused(decision, end, now)
    ended = _ended(decision.run, end, now)
    failed = ended.model_copy(update={"state": AttemptState.FAILED})
    verdict = Verdict(Course.FAILED, end.reason, with_advice(attempt_end(failed), end.reason))
    return Decision((*decision.attempts[:-1], failed), verdict)


def _since(decision: Decision, now: datetime) -> datetime | None:
    """Return since when what can not be made has been waited for; None if that takes its time. Of a
    check that was tried before, only that one tells."""
    run, check = decision.run, decision.reward_check
    if run is not None:
        waits = trained(decision.attempts) or run.workload_uid is not None
        return None if waits else timestamp(run.start_time)
    return timestamp(check.start_time) if check and not check.failures else now


def _policy(body: Object) -> dict[str, Any]:
    spec = body.get("spec")
    policy = spec.get("runPolicy") if isinstance(spec, dict) else None
    return policy if isinstance(policy, dict) else {}


def _deadline_left(body: Object, status: FineTuneJobStatus, now: datetime) -> timedelta | None:
    seconds = _policy(body).get("activeDeadlineSeconds")
    if not isinstance(seconds, int) or not 0 < seconds < _LONGEST:
        return None
    after = status.retry.after_attempt if status.retry else 0
    counted = [attempt for attempt in status.attempts or () if attempt.number > after]
    return timedelta(seconds=seconds) - active_time(counted, now)


def _end(body: Object, left: timedelta | None) -> End | None:
    if left is not None and left <= timedelta():
        return End(Reason.DEADLINE_EXCEEDED, "the attempts ran as long together as they may")
    if _policy(body).get("suspend") is True:
        return End(Reason.SUSPENDED, "spec.runPolicy.suspend is true")
    return None


def _ended(attempt: Attempt, end: End, now: datetime) -> Attempt:
    over = {"state": AttemptState.STOPPING, "end_time": rfc3339(now)}
    told = {"reason": end.reason, "message": bounded(end.message)}
    return attempt.model_copy(update={**over, **told})


def _is_live(job: Object, body: Object, recorded: set[str | None]) -> bool:
    own = is_child(job["metadata"], body) or body["metadata"]["uid"] in recorded
    return own and "deletionTimestamp" not in body["metadata"]


def _child(body: Object, owner: str) -> Child:
    metadata = body["metadata"]
    return Child(body["kind"], metadata["name"], metadata["uid"], owner, attempt_of(body), False)
