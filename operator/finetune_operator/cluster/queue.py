"""A work queue: each key at most once at a time, failures backed off per key, groups in turn.

The semantics of client-go's workqueue: a key that is added while it is being worked on is worked on
again afterwards, so no change is lost and none is handled twice at once. Beyond that no group of
keys holds up another, however many it has and however often they change.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

# Handles a key; returns the seconds after which to handle it again in any case, or None.
Handler = Callable[[K], Awaitable[float | None]]

_WORKERS = 16
_BURST = 10  # times that a key is handled as soon as it asks; then once per pace


class RetryLater(Exception):
    """The handler could not finish; the key comes back after its back-off."""


class _Turns(Generic[K]):
    """Keys that are ready, by group; each group in turn gives one, none more than half of the
    workers at a time: what one waits for, another need not."""

    def __init__(self, group: Callable[[K], Hashable]) -> None:
        self._group = group
        self._ready: OrderedDict[Hashable, OrderedDict[K, None]] = OrderedDict()
        self._busy: Counter[Hashable] = Counter()

    def __len__(self) -> int:
        return sum(map(len, self._ready.values()))

    def __contains__(self, key: K) -> bool:
        return key in self._ready.get(self._group(key), ())

    def add(self, key: K) -> None:
        self._ready.setdefault(self._group(key), OrderedDict())[key] = None

    def take(self) -> K | None:
        """Return the next key to be handled; None if there is none now."""
        for group, keys in self._ready.items():
            if self._busy[group] < _WORKERS // 2:
                key, _ = keys.popitem(last=False)
                self._busy[group] += 1
                if keys:
                    self._ready.move_to_end(group)
                else:
                    del self._ready[group]
                return key
        return None

    def done(self, key: K) -> None:
        group = self._group(key)
        self._busy[group] -= 1
        if not self._busy[group]:
            del self._busy[group]


class WorkQueue(Generic[K]):
    """Runs `handler` for keys; `base` and `cap` bound the back-off, `pace` is what a key that never
    rests is slowed down to, all in seconds."""

    def __init__(
        self,
        handler: Handler[K],
        base: float = 0.2,
        cap: float = 60.0,
        pace: float = 1.0,
        group: Callable[[K], Hashable] = lambda key: None,
    ) -> None:
        self._handler = handler
        self._base = base
        self._cap = cap
        self._pace = pace
        self._turns = _Turns(group)
        self._news = asyncio.Event()
        self._busy: set[K] = set()
        self._again: set[K] = set()
        self._failures: dict[K, int] = {}
        self._timers: dict[K, asyncio.TimerHandle] = {}
        # The time up to which a key has used what its pace grants; those that have rested are gone.
        self._used: OrderedDict[K, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._turns)

    def add(self, key: K) -> None:
        """Ask for the key to be handled soon."""
        if key in self._busy:
            self._again.add(key)
        elif key not in self._turns:
            if wait := self._wait(key):
                self._appoint(key, wait)
            else:
                self._ready(key)

    def forget(self, key: K) -> None:
        """Drop what is known of a key that is no more."""
        self._failures.pop(key, None)
        self._used.pop(key, None)

    async def run(self) -> None:
        """Handle keys until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(_WORKERS):
                    group.create_task(self._work())
        finally:
            for timer in self._timers.values():
                timer.cancel()

    async def _work(self) -> None:
        while True:
            key = self._turns.take()
            if key is None:
                self._news.clear()
                await self._news.wait()
                continue
            self._busy.add(key)
            self._use(key)
            try:
                after = await self._handle(key)
            finally:
                self._busy.discard(key)
                self._turns.done(key)
            if key in self._again:
                self._again.discard(key)
                self.add(key)
            elif after is not None:
                self._appoint(key, after)

    async def _handle(self, key: K) -> float | None:
        try:
            after = await self._handler(key)
        except RetryLater:
            failures = self._failures.get(key, 0)
            self._failures[key] = failures + 1
            return min(self._cap, self._base * 2.0 ** min(failures, 32))
        self._failures.pop(key, None)
        return after

    def _ready(self, key: K) -> None:
        if timer := self._timers.pop(key, None):
            timer.cancel()
        self._turns.add(key)
        self._news.set()

    def _appoint(self, key: K, after: float) -> None:
        """Have the key handled then, and not when it was agreed before."""
        if timer := self._timers.get(key):
            timer.cancel()
        self._timers[key] = asyncio.get_running_loop().call_later(after, self._due, key)

    def _due(self, key: K) -> None:
        del self._timers[key]
        self.add(key)

    def _wait(self, key: K) -> float:
        """Return the seconds that a key must rest before it is handled again."""
        granted = asyncio.get_running_loop().time() + (_BURST - 1) * self._pace
        return max(0.0, self._used.get(key, 0.0) - granted)

    def _use(self, key: K) -> None:
        now = asyncio.get_running_loop().time()
        self._used[key] = max(now, self._used.get(key, 0.0)) + self._pace
        self._used.move_to_end(key)
        while self._used and (first := next(iter(self._used.items())))[1] <= now:
            del self._used[first[0]]
