"""An event loop whose time passes only while nothing is to be done, or where a test says so."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any


class SimulatedLoop(asyncio.SelectorEventLoop):
    """Sleeps take no time, and last exactly as long as they say by this loop's clock."""

    def __init__(self) -> None:
        self._now = 0.0
        super().__init__(_Selector(self))

    def time(self) -> float:
        return self._now

    def work(self, seconds: float) -> None:
        """Let time pass in which the loop can do nothing else, as in a computation."""
        self._now += seconds


class _Selector(selectors.SelectSelector):
    def __init__(self, loop: SimulatedLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        assert timeout is not None, "everyone waits for everyone"
        self._loop.work(max(0.0, timeout))
        return super().select(0)


def simulated(story: Coroutine[Any, Any, None]) -> None:
    """Run a story in simulated time."""
    loop = SimulatedLoop()
    try:
        loop.run_until_complete(story)
    finally:
        loop.close()


def work(seconds: float) -> None:
    """Let the running loop's time pass in which it can do nothing else."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimulatedLoop)
    loop.work(seconds)
