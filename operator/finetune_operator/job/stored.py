"""A status as it is stored -> one that a decision can rest on, and what its conditions say.

Whoever may write a status may write whatever its schema takes. What can not have been written by an
operator is left out, part by part; what follows from other parts is put in its place, the present
for a time that is yet to come. Reading one never raises.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, TypeVar

from pydantic import ValidationError

from finetune_api.status import (
    Attempt,
    AttemptState,
    Condition,
    ConditionType,
    FineTuneJobStatus,
    RetryStatus,
    RewardCheckStatus,
)
from finetune_contract.foreign import printable
from finetune_contract.model import Message
from finetune_contract.reasons import Reason
from finetune_operator.job.times import rfc3339, timestamp

MOST_ATTEMPTS = 99_999_999  # the next one still has a name
_LONGEST_MESSAGE = 1024
_NO_REASON = "the status that said why was changed by someone else"
_LIVE = (AttemptState.STARTING, AttemptState.RUNNING)
M = TypeVar("M", bound=Message)
AHEAD = timedelta(minutes=1)  # by which the clocks of operators and API servers may differ


def stored_status(body: dict[str, Any], now: datetime | None = None) -> FineTuneJobStatus:
    """Return what of a job's stored status can be relied on; without `now` its times may be any."""
    status = _readable(body.get("status") or {})
    created = body["metadata"].get("creationTimestamp")
    attempts = _attempts(status.attempts or (), created, now)
    ended = attempts[-1].end_time if attempts else None
    last = attempts[-1].number if attempts else 0
    conditions = [_condition(c, ended or created, now) for c in status.conditions or ()]
    update: dict[str, Any] = {
        "attempts": attempts or None,
        "conditions": [c for c in conditions if c is not None] or None,
        "retry": _retry(status.retry, last) if status.retry else None,
        "reward_check": _check(status.reward_check, now) if status.reward_check else None,
    }
    return status.model_copy(update=update)


def find(status: FineTuneJobStatus, kind: ConditionType) -> Condition | None:
    """Return the condition of a type; None if it is not there."""
    return next((c for c in status.conditions or () if c.type == kind), None)


def finished(status: FineTuneJobStatus) -> bool:
    """Return whether the job has succeeded, or failed and was not let go on."""
    succeeded = find(status, ConditionType.SUCCEEDED)
    return succeeded is not None and succeeded.status != "Unknown"


def finished_time(status: FineTuneJobStatus) -> datetime:
    """Return when a finished job finished."""
    succeeded = find(status, ConditionType.SUCCEEDED)
    assert succeeded is not None, "a finished job has the condition"
    return datetime.fromisoformat(succeeded.last_transition_time)


def _readable(value: Any) -> FineTuneJobStatus:
    """Return the parts of a status that are of its form."""
    try:
        return FineTuneJobStatus.model_validate(value)
    except ValidationError as error:
        wrong = error
    value = copy.deepcopy(value)
    while isinstance(value, dict):
        for path in sorted({_to_leave_out(e) for e in wrong.errors()}, key=_last_first):
            if not path:
                return FineTuneJobStatus()
            _leave_out(value, path)
        try:
            return FineTuneJobStatus.model_validate(value)
        except ValidationError as error:
            wrong = error
    return FineTuneJobStatus()


Path = tuple[int | str, ...]


def _to_leave_out(error: Any) -> Path:
    """Return the smallest part without which an error would not be: where a field is missing, what
    lacks it."""
    path: Path = tuple(error["loc"])
    return path[:-1] if error["type"] == "missing" else path


def _last_first(path: Path) -> tuple[Any, ...]:
    """Order paths so that what is left out of a list does not move what is still to be."""
    return tuple((-step, "") if isinstance(step, int) else (0, step) for step in path)


def _leave_out(value: Any, path: Path) -> None:
    for step in path[:-1]:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):  # it went with a part around it
            return
    if isinstance(value, dict):
        value.pop(path[-1], None)
    elif isinstance(value, list) and isinstance(path[-1], int) and path[-1] < len(value):
        del value[path[-1]]


def _attempts(found: Iterable[Attempt], created: str | None, now: datetime | None) -> list[Attempt]:
    """Return the attempts in their order, each once, each with what its state implies."""
    by_number = {a.number: a for a in found if 1 <= a.number <= MOST_ATTEMPTS}
    sound = (_attempt(by_number[number], created, now) for number in sorted(by_number))
    attempts = [attempt for attempt in sound if attempt is not None]
    return [*(_over(a, b) for a, b in pairwise(attempts)), *attempts[-1:]]


def _over(attempt: Attempt, following: Attempt) -> Attempt:
    """Return an attempt that another followed, which is over then, whatever its record says."""
    if attempt.state not in (*_LIVE, AttemptState.STOPPING):
        return attempt
    ended = {"state": AttemptState.FAILED, "end_time": attempt.end_time or following.start_time}
    if attempt.reason is None:
        ended |= {"reason": Reason.RESULT_LOST, "message": _NO_REASON}
    return attempt.model_copy(update=ended)


def _attempt(attempt: Attempt, created: str | None, now: datetime | None) -> Attempt | None:
    start, running, end = (
        _time(t, now) for t in (attempt.start_time, attempt.running_time, attempt.end_time)
    )
    start = start or running or end or _time(created, now)
    if start is None:
        return None
    update: dict[str, Any] = {"start_time": start, "running_time": running, "end_time": end}
    if attempt.state not in _LIVE:
        update["end_time"] = end or start
        if attempt.reason not in set(Reason):
            update |= {"reason": Reason.RESULT_LOST, "message": _NO_REASON}
    elif attempt.reason is not None:
        update |= {"reason": None, "message": None}
    message = update.get("message", attempt.message)
    update["message"] = message and printable(message, _LONGEST_MESSAGE)
    return _with(attempt, update)


def _condition(
    condition: Condition, otherwise: str | None, now: datetime | None
) -> Condition | None:
    since = _time(condition.last_transition_time, now) or _time(otherwise, now)
    if since is None:
        return None
    return _with(condition, {"last_transition_time": since})


def _retry(retry: RetryStatus, last: int) -> RetryStatus:
    """Return what was let go on: no attempt that is yet to come."""
    return retry.model_copy(update={"after_attempt": min(retry.after_attempt, last)})


def _check(check: RewardCheckStatus, now: datetime | None) -> RewardCheckStatus:
    times = {"start_time": _time(check.start_time, now), "end_time": _time(check.end_time, now)}
    return check.model_copy(update=times)


def _with(part: M, update: dict[str, Any]) -> M:
    """Return a part with other values; itself, as is usual and costs less, if they are its own."""
    if all(getattr(part, name) == value for name, value in update.items()):
        return part
    return part.model_copy(update=update)


def _time(text: str | None, now: datetime | None) -> str | None:
    """Return a time as this operator writes it; one that is yet to come postpones nothing."""
    time = timestamp(text)
    if time is None:
        return None
    return rfc3339(now if now is not None and time > now + AHEAD else time)
