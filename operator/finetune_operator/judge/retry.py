"""What follows an attempt that ended: the table of reasons applied to the record. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from finetune_api.job import FineTuneJob
from finetune_api.status import Attempt, AttemptState
from finetune_contract.reasons import Reason, Retry, retry_of
from finetune_operator.job.run_config import micro_batch_size
from finetune_operator.job.times import timestamp
from finetune_operator.job.workers import processes
from finetune_operator.settings import Settings

_COUNTED = {Retry.COUNTED, Retry.SMALLER_BATCH}


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
    """Return what follows an end. Room on nodes comes by itself; what else an attempt waited for in
    vain may never come, which ends a job that has not trained."""
    kind = retry_of(reason, begun)
    waits = begun or reason is Reason.UNSCHEDULABLE
    return Retry.INFRASTRUCTURE if kind is Retry.WAIT and not waits else kind


def gives_up(job: FineTuneJob, attempts: Sequence[Attempt], settings: Settings) -> str | None:
    """Return why no attempt follows the last one, in words that end a message; None if one does."""
    last, classes = attempts[-1], retry_classes(attempts)
    match classes[-1]:
        case Retry.NEVER:
            return ""
        case Retry.COUNTED | Retry.SMALLER_BATCH as kind:
            if kind is Retry.SMALLER_BATCH and last.micro_batch_size == 1:
                return "microBatchSize is 1 already"
            counted = sum(kind in _COUNTED for kind in classes)
            allowed = job.spec.run_policy.max_attempts
            return f"it was attempt {counted} of {allowed}" if counted >= allowed else None
        case Retry.INFRASTRUCTURE:
            lost = _lost_in_vain(attempts, classes)
            cap = settings.max_infrastructure_attempts
            return f"the infrastructure ended {lost} attempts" if lost >= cap else None
        case Retry.WAIT | Retry.NONE:
            return None


def trained(attempts: Sequence[Attempt]) -> bool:
    """Return whether any attempt did an optimizer step."""
    return any(attempt.last_step for attempt in attempts)


def _lost_in_vain(attempts: Sequence[Attempt], classes: Sequence[Retry]) -> int:
    """Return how many attempts the infrastructure ended since one saved a step: what gets further
    each time, as on spot instances, comes to its end."""
    saved, lost = 0, 0
    for attempt, kind in zip(attempts, classes, strict=True):
        safe = (attempt.last_step or 0) - (attempt.lost_steps or 0)
        if safe > saved:
            saved, lost = safe, 0
        lost += kind is Retry.INFRASTRUCTURE
    return lost


def backoff(attempts: Sequence[Attempt], settings: Settings) -> timedelta:
    """Return how long after the last attempt's end the next one starts.

    It doubles with each failure in a row; a suspension starts anew.
    """
    failures = 0
    for attempt in reversed(attempts):
        if attempt.state is not AttemptState.FAILED:
            break
        failures += 1
    return doubled(failures, settings)


def doubled(failures: int, settings: Settings) -> timedelta:
    """Return the pause after so many failures in a row."""
    if failures == 0:
        return timedelta()
    # 2**32 times any base is beyond any cap, and larger powers overflow a float.
    delay = settings.retry_base_seconds * 2.0 ** min(failures - 1, 32)
    return timedelta(seconds=min(settings.retry_cap_seconds, delay))


def next_micro_batch(job: FineTuneJob, attempts: Sequence[Attempt]) -> int | None:
    """Return the micro-batch of the next attempt; None is Auto.

    The job's own until an attempt runs out of memory; then at most half of what really ran, always
    one that divides the global batch, and 1 where the trainer had no time to tell.
    """
    classes = retry_classes(attempts)
    if Retry.SMALLER_BATCH not in classes:
        return micro_batch_size(job.spec)
    last = attempts[-1]
    if classes[-1] is not Retry.SMALLER_BATCH:
        return last.micro_batch_size
    if last.micro_batch_size is None:
        return 1
    per_process = job.spec.training.global_batch_size // processes(job)
    return max(n for n in range(1, last.micro_batch_size // 2 + 1) if per_process % n == 0)


def active_time(attempts: Sequence[Attempt], now: datetime) -> timedelta:
    """Return how long the attempts have run together."""
    total = timedelta()
    for attempt in attempts:
        start, end = timestamp(attempt.start_time), timestamp(attempt.end_time)
        assert start is not None, "every attempt has a start"
        total += max(timedelta(), (end or now) - start)
    return total
