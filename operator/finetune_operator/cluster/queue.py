"""A work queue: each key at most once at a time, failures backed off per key.

The semantics of client-go's workqueue: a key that is added while it is being worked on is worked on
again afterwards, so no change is lost and none is handled twice at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

# Handles a key; returns the seconds after which to handle it again in any case, or None.
Handler = Callable[[K], Awaitable[float | None]]


class RetryLater(Exception):
    """The handler could not finish; the key comes back after its back-off."""


class WorkQueue(Generic[K]):
    """Runs `handler` for keys on `workers` tasks; `base` and `cap` bound the back-off, seconds."""

    def __init__(
        self, handler: Handler[K], workers: int = 8, base: float = 0.2, cap: float = 60.0
    ) -> None:
        self._handler = handler
        self._workers = workers
        self._base = base
        self._cap = cap
        self._ready: asyncio.Queue[K] = asyncio.Queue()
        self._waiting: set[K] = set()
        self._busy: set[K] = set()
        self._again: set[K] = set()
        self._failures: dict[K, int] = {}
        self._timers: dict[K, asyncio.TimerHandle] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, key: K) -> None:
        """Ask for the key to be handled soon."""
        if key in self._busy:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._ready.put_nowait(key)

    async def run(self) -> None:
        """Handle keys until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._workers):
                    group.create_task(self._work())
        finally:
            for timer in self._timers.values():
                timer.cancel()

    async def _work(self) -> None:
        while True:
            key = await self._ready.get()
            self._waiting.discard(key)
            self._busy.add(key)
            if timer := self._timers.pop(key, None):
                timer.cancel()
            try:
                after = await self._handle(key)
            finally:
                self._busy.discard(key)
            if key in self._again:
                self._again.discard(key)
                self.add(key)
            elif after is not None:
                loop = asyncio.get_running_loop()
                self._timers[key] = loop.call_later(after, self._due, key)

    async def _handle(self, key: K) -> float | None:
        try:
            after = await self._handler(key)
        except RetryLater:
            failures = self._failures.get(key, 0)
            self._failures[key] = failures + 1
            return min(self._cap, self._base * 2.0 ** min(failures, 32))
        self._failures.pop(key, None)
        return after

    def _due(self, key: K) -> None:
        self._timers.pop(key, None)
        self.add(key)
