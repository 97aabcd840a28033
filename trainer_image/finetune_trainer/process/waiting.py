"""Waits of this process that end by themselves, for a store, a hub, a server or another's lock.

Who is in one does not stand still, however short the job's own bound for that is: the wait has its
own, and an end that says what was waited for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_until: dict[object, float] = {}  # when each ends at the latest; threads come and go


@contextmanager
def waiting(seconds: float) -> Iterator[None]:
    """Be in a wait that lasts so long at most; what lasts longer is none."""
    wait = object()
    _until[wait] = time.monotonic() + seconds
    try:
        yield
    finally:
        del _until[wait]


def rest(seconds: float, sleep: Callable[[float], object] | None = None) -> None:
    """Let a while pass before something is tried again."""
    with waiting(seconds):
        (sleep or time.sleep)(seconds)


def waits() -> bool:
    """Tell whether any thread is in such a wait."""
    now = time.monotonic()
    return any(end > now for end in list(_until.values()))
