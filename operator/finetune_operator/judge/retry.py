"""What follows an attempt that ended: the table of reasons applied to the record. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from finetune_api.job import FineTuneJob
from finetune_api.status import Attempt, AttemptState
from finetune_contract.reasons import Reason, Retry, retry_of
from finetune_operator.job.footprint import Footprint, least, smaller
from finetune_operator.job.times import timestamp
from finetune_operator.settings import Settings

_COUNTED = {Retry.COUNTED, Retry.LESS_MEMORY}
_RARELY = 3600.0  # seconds; each attempt takes room in a status, which has its bound


def retry_classes(attempts: Sequence[Attempt]) -> list[Retry]:
    """Return what the table says of each attempt's reason; a step that was done counts from then
    on, so that an attempt whose keys are still the old ones at its start does not end the job."""
    classes: list[Retry] = []
    begun = False
    for attempt in attempts:
        begun = begun or bool(attempt.last_step)
        classes.append(_retry(Reason(attempt.reason), begun) if attempt.reason else Retry.NONE)
    return classes


def _retry(reason: Reason, begun: bool) -> Retry:
    """Return what follows an end. A place in a queue and room on nodes come by themselves; what
    else an attempt waited for in vain may never come, which ends a job that has not trained."""
    kind = retry_of(reason, begun)
    waits = begun or reason in (Reason.UNSCHEDULABLE, Reason.QUEUED)
    return Retry.INFRASTRUCTURE if kind is Retry.WAIT and not waits else kind


def gives_up(
    job: FineTuneJob, attempts: Sequence[Attempt], settings: Settings, after: int = 0
) -> str | None:
    """Return why no attempt follows the last one, in words that end a message; None if one does.
    Those up to attempt `after` do not count."""
    last, classes = attempts[-1], retry_classes(attempts)
    if last.number <= after:
        return None
    match classes[-1]:
        case Retry.NEVER:
            return ""
        case Retry.COUNTED | Retry.LESS_MEMORY as kind:
            now = Footprint.of(job, last)
            if kind is Retry.LESS_MEMORY and smaller(job, now) is None:
                return least(job, now)
            recent = zip(attempts, classes, strict=True)
            counted = sum(kind in _COUNTED for one, kind in recent if one.number > after)
            allowed = job.spec.run_policy.max_attempts
            return f"it was attempt {counted} of {allowed}" if counted >= allowed else None
        case Retry.INFRASTRUCTURE:
            lost = _lost_in_vain(attempts, classes, after)
            cap = settings.max_infrastructure_attempts
            return f"the infrastructure ended {lost} attempts" if lost >= cap else None
        case Retry.WAIT | Retry.NONE:
            return None


def trained(attempts: Sequence[Attempt]) -> bool:
    """Return whether any attempt did an optimizer step."""
    return any(attempt.last_step for attempt in attempts)


def _lost_in_vain(attempts: Sequence[Attempt], classes: Sequence[Retry], after: int) -> int:
    """Return how many attempts the infrastructure ended since one saved a step: what gets further
    each time, as on spot instances, comes to its end."""
    saved, lost = 0, 0
    for attempt, kind, endless in zip(attempts, classes, _endless(attempts), strict=True):
        safe = (attempt.last_step or 0) - (attempt.lost_steps or 0)
        if safe > saved:
            saved, lost = safe, 0
        lost += kind is Retry.INFRASTRUCTURE and not endless and attempt.number > after
    return lost


def _endless(attempts: Sequence[Attempt]) -> list[bool]:
    """Tell of each attempt whether its end may come any number of times. In a job that has trained,
    one whose pods never all ran cost no training; what keeps them from it passes."""
    begun, told = False, []
    for attempt, kind in zip(attempts, retry_classes(attempts), strict=True):
        begun = begun or bool(attempt.last_step)
        free = begun and attempt.running_time is None
        told.append(kind is Retry.WAIT or (kind is Retry.INFRASTRUCTURE and free))
    return told


def backoff(attempts: Sequence[Attempt], settings: Settings, after: int = 0) -> timedelta:
    """Return how long after the last attempt's end the next one starts.

    It doubles with each failure in a row, further with each that no number of attempts ends; a
    suspension starts anew, and so does attempt `after`.
    """
    failures, vain = 0, 0
    for attempt, endless in zip(reversed(attempts), reversed(_endless(attempts)), strict=True):
        if attempt.state is not AttemptState.FAILED or attempt.number <= after:
            break
        vain += endless and vain == failures
        failures += 1
    return max(doubled(failures, settings), doubled(vain, settings, _RARELY))


def doubled(failures: int, settings: Settings, least_cap: float = 0.0) -> timedelta:
    """Return the pause after so many failures in a row."""
    if failures == 0:
        return timedelta()
    # 2**32 times any base is beyond any cap, and larger powers overflow a float.
    delay = settings.retry_base_seconds * 2.0 ** min(failures - 1, 32)
    return timedelta(seconds=min(max(settings.retry_cap_seconds, least_cap), delay))


def next_footprint(job: FineTuneJob, attempts: Sequence[Attempt]) -> Footprint:
    """Return what the next attempt is told of memory: the job's own until one runs out of it; then
    less than that one ran with, and never more again."""
    classes = retry_classes(attempts)
    if Retry.LESS_MEMORY not in classes:
        return Footprint.asked(job.spec)
    now = Footprint.of(job, attempts[-1])
    return (smaller(job, now) if classes[-1] is Retry.LESS_MEMORY else None) or now


def active_time(attempts: Sequence[Attempt], now: datetime) -> timedelta:
    """Return how long the attempts have run together."""
    total = timedelta()
    for attempt in attempts:
        start, end = timestamp(attempt.start_time), timestamp(attempt.end_time)
        assert start is not None, "every attempt has a start"
        total += max(timedelta(), (end or now) - start)
    return total
