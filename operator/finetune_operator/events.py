"""Events on a job's transitions. What a job is, its status says; an Event may be lost."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from finetune_api.status import (
    ConditionType,
    FineTuneJobStatus,
    ProgressStatus,
    RewardCheckState,
    RewardCheckStatus,
)
from finetune_contract.reasons import Reason, Retry, retry_of
from finetune_operator import logs
from finetune_operator.cluster.api import Api, ApiError, Unreachable
from finetune_operator.job.names import MANAGER, Object
from finetune_operator.job.stored import find
from finetune_operator.job.times import rfc3339

log = logging.getLogger(__name__)

_LONGEST_MESSAGE = 1024
_REMEMBERED = 4096
_WAITING = 1024


@dataclass(frozen=True)
class Transition:
    """What an Event tells."""

    warning: bool
    reason: str
    message: str


def transitions(old: FineTuneJobStatus, new: FineTuneJobStatus) -> Iterator[Transition]:
    """Yield what happened between two statuses: attempts' starts and ends, a note, a reason."""
    before = {a.number: a for a in old.attempts or ()}
    for attempt in new.attempts or ():
        known = before.get(attempt.number)
        if known is None:
            text = f"attempt {attempt.number} of image {attempt.image}"
            yield Transition(False, "AttemptStarted", text)
        if attempt.resumed_step is not None and (known is None or known.resumed_step is None):
            text = f"attempt {attempt.number} goes on from step {attempt.resumed_step}"
            yield Transition(False, "AttemptResumed", text)
        ended = attempt.end_time is not None and (known is None or known.end_time is None)
        if ended and attempt.reason not in (Reason.SUCCEEDED, Reason.SUSPENDED):
            text = f"attempt {attempt.number}: {attempt.reason}: {attempt.message}"
            yield Transition(True, "AttemptFailed", text)
    yield from _tried(old.reward_check, new.reward_check)
    yield from _noted(old.progress, new.progress)
    was, now = find(old, ConditionType.SUCCEEDED), find(new, ConditionType.SUCCEEDED)
    if now is None or (was is not None and (was.status, was.reason) == (now.status, now.reason)):
        return
    begun = any(attempt.last_step for attempt in new.attempts or ())
    waits = retry_of(Reason(now.reason), begun) is Retry.WAIT
    if now.status == "False":
        yield Transition(True, "Failed", now.message)
    elif waits or now.reason == Reason.INVALID_SPEC:
        yield Transition(True, now.reason, now.message)
    elif now.reason in (Reason.SUCCEEDED, Reason.SUSPENDED, Reason.RUNNING):
        yield Transition(False, now.reason, now.message)


def _tried(old: RewardCheckStatus | None, new: RewardCheckStatus | None) -> Iterator[Transition]:
    if new is None or new.end_time is None or (old and old.end_time == new.end_time):
        return
    passed = new.state is RewardCheckState.PASSED
    yield Transition(not passed, "RewardsTried", new.message or "")


def _noted(old: ProgressStatus | None, new: ProgressStatus | None) -> Iterator[Transition]:
    before = (old.attempt, old.note) if old else None
    if new is not None and new.note and (new.attempt, new.note) != before:
        yield Transition(True, "AttemptNote", f"attempt {new.attempt}: {new.note}")


class Recorder:
    """Writes Events behind the passes' back; the same one again is counted, not repeated."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._counts: OrderedDict[str, int] = OrderedDict()
        self._noted: asyncio.Queue[tuple[Object, Transition, datetime]] = asyncio.Queue(_WAITING)

    def note(self, body: Object, transition: Transition, now: datetime) -> None:
        """Ask for an Event about a job; it is lost if too many wait already."""
        with contextlib.suppress(asyncio.QueueFull):
            self._noted.put_nowait((body, transition, now))

    async def run(self) -> None:
        """Write what was noted until cancelled."""
        while True:
            await self.record(*await self._noted.get())

    async def record(self, body: Object, transition: Transition, now: datetime) -> None:
        """Write one Event about a job; a failure is logged and has no consequence."""
        metadata = body["metadata"]
        text = f"{metadata['uid']}/{transition.reason}/{transition.message}"
        name = f"{metadata['name']}.{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        count = self._counts.get(name, 0) + 1
        try:
            if count == 1 or not await self._repeat(metadata["namespace"], name, count, now):
                count = 1
                await self._api.create(_event(body, name, transition, now))
        except (ApiError, Unreachable) as error:
            with logs.about(metadata["namespace"], metadata["name"]):
                log.info("an Event was lost: %s", error)
        self._counts[name] = count
        if len(self._counts) > _REMEMBERED:
            self._counts.popitem(last=False)

    async def _repeat(self, namespace: str, name: str, count: int, now: datetime) -> bool:
        """Count an Event again; return False if it has expired, an hour later by default."""
        again = {"count": count, "lastTimestamp": rfc3339(now)}
        try:
            await self._api.patch_event(namespace, name, again)
        except ApiError as error:
            if error.code != 404:
                raise
            return False
        return True


def _event(body: Object, name: str, transition: Transition, now: datetime) -> Object:
    metadata = body["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": metadata["namespace"]},
        "type": "Warning" if transition.warning else "Normal",
        "reason": transition.reason,
        "message": transition.message[:_LONGEST_MESSAGE],
        "count": 1,
        "firstTimestamp": rfc3339(now),
        "lastTimestamp": rfc3339(now),
        "source": {"component": MANAGER},
        "reportingComponent": MANAGER,
        "reportingInstance": "",
        "involvedObject": {
            "apiVersion": body["apiVersion"],
            "kind": body["kind"],
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
        },
    }
