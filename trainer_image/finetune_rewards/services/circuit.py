"""A circuit breaker that holds a run while a service is down, and sends again what was lost.

A request without an answer says little: the service may be down, or choke on this one. So the
last request that was answered is sent again. If that is answered, only the request is at fault, and
its completions have errors. If not, the circuit opens: nothing is sent but one probe at a time,
until one is answered. What was lost then starts over, with all its retries.

A service that says it is busy is up, and the request is as good as the others: it is sent again
after longer and longer waits, as long as others are answered in between.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from finetune_rewards.scores.errors import RewardUnavailable

log = logging.getLogger(__name__)

LONGEST_RETRY_AFTER_SECONDS = 60.0
MOST_OUTAGES = 5  # that one request may be lost to; a request that fells the service ends here
# How often in a row a request may be told that the service is busy which answers all others.
MOST_REFUSALS = 10
MOST_DOUBLINGS = 16  # of a wait; far above every longest one

Asked = TypeVar("Asked")
Answered = TypeVar("Answered")
Note = Callable[[str | None], None]


class Unanswered(Exception):
    """A request got no answer of its own; `retry_after` seconds is the service's wish.

    `busy`: the service itself says that it has too much to do.
    """

    def __init__(self, cause: str, retry_after: float | None = None, *, busy: bool = False) -> None:
        super().__init__(cause)
        self.retry_after = retry_after
        self.busy = busy


@dataclass(frozen=True)
class Waits:
    """Seconds between tries of a request, and between probes of a service that is down; with the
    clock and the chance that they go by."""

    first: float = 0.1
    longest: float = 5.0
    first_probe: float = 0.5
    longest_probe: float = 30.0
    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    uniform: Callable[[float, float], float] = random.uniform

    async def retry(self, error: Unanswered, before: int) -> None:
        """Wait for a retry, after `before` others: for as long as the service asks for, and
        exponentially with full jitter, so that requests that failed together come back apart."""
        longest = min(self.first * 2 ** min(before, MOST_DOUBLINGS), self.longest)
        await self.sleep(_asked(error) + self.uniform(0, longest))


class Circuit(Generic[Asked, Answered]):
    """One service's requests, `at_once` of them under way and a probe. `send` raises Unanswered;
    `note` hears why the run waits, and None when it goes on."""

    def __init__(
        self,
        name: str,
        send: Callable[[Asked], Awaitable[Answered]],
        *,
        at_once: int,
        retries: int,
        pause_seconds: float,
        note: Note,
        waits: Waits | None = None,
    ) -> None:
        self._name, self._send, self._note = name, send, note
        self._pause_seconds, self._retries = pause_seconds, retries
        self._waits = waits or Waits()
        self._now = self._waits.now
        self._slots = asyncio.Semaphore(at_once)
        self._closed = asyncio.Event()
        self._closed.set()
        self._probing = asyncio.Lock()
        self._known: Asked | None = None  # the last request that was answered
        self._logged = ""  # why it waits
        self._closed_at = float("-inf")
        self._probed_at = float("-inf")  # when a probe was answered
        self._served_at = float("-inf")  # when any other request was

    async def ask(self, request: Asked) -> Answered:
        """Return the answer, however long the service is away.

        Raises:
            Unanswered: if the service is up, but does not answer this request.
            RewardUnavailable: if it was down for `pause_seconds`.
        """
        outages = refusals = 0
        waits = itertools.count()
        while True:
            began = self._now()
            try:
                return await self._retried(request, waits)
            except Unanswered as error:
                if error.busy and began < self._served_at:
                    refusals = 0
                elif error.busy:
                    refusals += await self._at_fault(request)
                elif await self._at_fault(request):
                    raise
                else:
                    outages += 1
                if outages == MOST_OUTAGES or refusals == MOST_REFUSALS:
                    raise
                if error.busy:
                    await self._waits.retry(error, next(waits))

    async def _retried(self, request: Asked, waits: Iterator[int]) -> Answered:
        for _ in range(self._retries):
            try:
                return await self._attempt(request)
            except Unanswered as error:
                await self._waits.retry(error, next(waits))
        return await self._attempt(request)

    async def _attempt(self, request: Asked) -> Answered:
        async with self._slots:
            await self._closed.wait()
            answer = await self._send(request)
        self._known, self._served_at = request, self._now()
        return answer

    async def _at_fault(self, request: Asked) -> bool:
        """Return, once the service is up, whether it was so when the request got no answer."""
        lost_at = self._now()
        async with self._probing:
            if lost_at < self._closed_at:
                return False
            if lost_at < self._probed_at:
                return True
            return await self._probe(request)

    async def _probe(self, request: Asked) -> bool:
        """Return, once a probe is answered, whether the service seems to have been up all along.

        Where nothing was answered yet, the request is the probe, and others still pass.
        """
        waits, since, down = self._waits, self._now(), self._known is None
        wait = waits.first_probe
        while True:
            probe = request if self._known is None else self._known
            try:
                await self._send(probe)
            except Unanswered as error:
                down = True
                self._open(str(error))
                if self._now() - since >= self._pause_seconds:
                    raise RewardUnavailable(
                        f"reward {self._name}: no answer for {self._pause_seconds:g} s: {error}"
                    ) from None
                left = since + self._pause_seconds - self._now()
                await waits.sleep(min(left, max(_asked(error), wait * waits.uniform(0.5, 1))))
                wait = min(2 * wait, waits.longest if error.busy else waits.longest_probe)
            else:
                self._probed_at = self._now()
                if down:
                    self._close()
                return not down

    def _open(self, cause: str) -> None:
        if self._known is not None:
            self._closed.clear()
        if cause != self._logged:  # not with every probe
            log.warning("waits for reward %s: %s", self._name, cause)
        self._logged = cause
        self._note(f"waits for reward {self._name}: {cause}")

    def _close(self) -> None:
        self._closed_at = self._now()
        self._closed.set()
        self._logged = ""
        self._note(None)
        log.info("reward %s answers", self._name)


def _asked(error: Unanswered) -> float:
    return min(error.retry_after or 0.0, LONGEST_RETRY_AFTER_SECONDS)
