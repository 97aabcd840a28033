"""A place for one worker: batches take turns there, and a worker that fails is replaced.

An answer is always as long as what was asked: what a worker does not score is an error, by name.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from finetune_contract.reasons import Reason
from finetune_rewards.confine.process import LANDLOCK, SECCOMP
from finetune_rewards.runner import frames
from finetune_rewards.runner.protocol import BadAnswer, Problem, most_answer, unpack_items
from finetune_rewards.runner.worker_process import COMMAND, WorkerFailed, WorkerLate, WorkerProcess
from finetune_rewards.scores.answers import error, one_line
from finetune_rewards.scores.errors import (
    RewardError,
    RewardInvalid,
    RewardUnavailable,
    SandboxUnavailable,
)
from finetune_rewards.scores.samples import Answer, Item

log = logging.getLogger(__name__)

LOAD_SECONDS = 120.0  # libraries of many MB from a cold disk
LOAD_REMEDY = (
    "on a slow node another try may do; if not, import less, or do what takes long in the first "
    "call, which timeoutSeconds bounds"
)
# Of a batch, together with those of other ranks before it. With the time that a worker may take to
# load it stays below what a client waits for an answer.
MOST_SECONDS = 1000.0
OUT_OF_TIME = "the batch's other completions took all the time there is"
MOST_HELLO = 0  # a worker's first message has no body


@dataclass(frozen=True)
class Assignment:
    """What a worker loads, and for how many seconds it may keep silent.

    With `total_seconds`, which bound a batch, it answers completion by completion, and one that
    it fails on costs no other.
    """

    name: str
    load: frames.Header
    body: bytes
    seconds: float
    total_seconds: float | None = None
    load_seconds: float = LOAD_SECONDS

    @property
    def singly(self) -> bool:
        """Tell whether it answers completion by completion."""
        return self.total_seconds is not None

    @property
    def batch_seconds(self) -> float:
        """Return for how long a batch may keep the worker."""
        return self.seconds if self.total_seconds is None else self.total_seconds


class Station:
    """One worker at a time."""

    def __init__(self, assignment: Assignment, command: Sequence[str] = COMMAND) -> None:
        self._assignment = assignment
        self._command = command
        self._turn = asyncio.Lock()
        self._worker: WorkerProcess | None = None
        self._numbers = itertools.count()
        self._replacing: asyncio.Task[None] | None = None
        self._stopped = False

    async def start(self) -> Problem | None:
        """Have a worker ready; return why there can be none."""
        async with self._turn:
            try:
                await self._ready()
            except RewardError as unusable:
                return Problem(unusable.reason, unusable.message)
            return None

    async def stop(self) -> None:
        """End the worker; a batch under way fails."""
        self._stopped = True
        if self._replacing:
            self._replacing.cancel()
            await asyncio.wait([self._replacing])
        await self._discard()

    async def score(self, reward: str, body: bytes, count: int) -> Answer:
        """Return `count` items for the samples in `body`, and the seconds that they took."""
        most = MOST_SECONDS - self._assignment.batch_seconds
        try:
            async with asyncio.timeout(most):
                await self._turn.acquire()
        except TimeoutError:
            return Answer.failed(count, f"it was not this batch's turn within {most:g} s")
        begun = time.monotonic()
        try:
            items = await self._scored(reward, body, count)
            return Answer(items, time.monotonic() - begun)
        finally:
            self._rest()
            self._turn.release()
            if self._worker is None:  # the next batch need not wait
                self._replacing = asyncio.create_task(self._replace())

    async def _scored(self, reward: str, body: bytes, count: int) -> list[Item]:
        items: list[Item] = []
        deadline = time.monotonic() + (self._assignment.total_seconds or math.inf)
        while (left := count - len(items)) > 0:
            if time.monotonic() > deadline:
                return items + [error(OUT_OF_TIME)] * left
            try:
                await self._ready()
                await self._extend(items, reward, body, count, deadline)
            except WorkerFailed as failure:
                await self._discard()
                failed = 1 if self._assignment.singly else left
                items += [error(str(failure))] * failed
            except RewardError as unusable:
                return items + [error(unusable.message)] * left
        return items

    async def _extend(
        self, items: list[Item], reward: str, body: bytes, count: int, deadline: float
    ) -> None:
        worker = self._worker
        assert worker is not None
        seconds = self._assignment.seconds
        chunk = 1 if self._assignment.singly else count
        number = next(self._numbers)
        asked = {"id": number, "reward": reward, "start": len(items), "chunk": chunk}
        await worker.send(asked, body, seconds)
        while len(items) < count:
            if time.monotonic() > deadline:
                await self._discard()
                return
            header, answer = await worker.receive(most_answer(chunk), seconds)
            if header.get("id") != number:
                raise WorkerFailed("the answer is not to what was asked")
            try:
                items += unpack_items(answer, chunk)
            except BadAnswer as bad:
                raise WorkerFailed(str(bad)) from bad
            if header.get("spent"):
                await self._discard()
                return

    async def _ready(self) -> None:
        if self._worker is not None and self._worker.alive:
            return
        await self._discard()
        if self._stopped:
            raise WorkerFailed("the runner was told to stop")
        try:
            header = await self._hello()
        except WorkerFailed as failure:
            await self._discard()
            raise self._not_loaded(failure) from failure
        match header:
            case {"ready": True, "lacks": [*lacks]}:
                self._rest()
                for lack in (SECCOMP, LANDLOCK):
                    if lack in lacks:
                        log.warning("%s: runs without %s", self._assignment.name, lack)
            case _:
                await self._discard()
                raise self._refused(header)

    async def _hello(self) -> frames.Header:
        """Start a worker; return its first message."""
        work, most = self._assignment, self._assignment.load_seconds
        memory = work.load["memoryBytes"]
        self._worker = await WorkerProcess.started(work.name, self._command, memory)
        await self._worker.send(work.load, work.body, most)
        header, _ = await self._worker.receive(MOST_HELLO, most)
        return header

    def _not_loaded(self, failure: WorkerFailed) -> RewardError:
        """Return why a worker said nothing; being late is not yet a fault of what it loads."""
        late = isinstance(failure, WorkerLate)
        of_users = not self._assignment.singly
        whose = f"reward {self._assignment.name}" if of_users else "a builtin reward"
        said = f"{whose}: it does not load: {failure}"
        if late and of_users:
            said += f"; {LOAD_REMEDY}"
        return RewardUnavailable(said) if late else RewardInvalid(said)

    def _refused(self, header: frames.Header) -> RewardError:
        """Return why a worker refuses; the code that it loaded may have said anything instead."""
        lacking, said = False, "it does not load: its process said something else"
        if header.get("ready") is False and isinstance(message := header.get("message"), str):
            said = one_line(message)
            lacking = header.get("reason") == Reason.SANDBOX_UNAVAILABLE
        named = said if self._assignment.singly else f"reward {self._assignment.name}: {said}"
        return SandboxUnavailable(named) if lacking else RewardInvalid(named)

    def _rest(self) -> None:
        if self._worker is not None:
            self._worker.rest()

    async def _discard(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            await worker.end()

    async def _replace(self) -> None:
        async with self._turn:
            with contextlib.suppress(RewardError, WorkerFailed):  # told to who asks next
                await self._ready()
