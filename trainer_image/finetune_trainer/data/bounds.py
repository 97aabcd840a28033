"""A stranger's program in this process, such as a chat template, bounded in time and memory.

Time is the processor's, so that a busy node changes nothing, and is up by a signal, which only the
main thread can be given. Memory is what Linux lets a process write to. All threads share both.
"""

from __future__ import annotations

import resource
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

STATM_DATA = 5  # of /proc/self/statm (proc(5)), in pages


class Exceeded(Exception):
    """The work took more than it may of what the message names: time, or memory."""


class _Late(BaseException):
    """Raised wherever the work is, which must not take it for an error of its own."""


@contextmanager
def bounded(seconds: float, memory_bytes: int) -> Iterator[None]:
    """Give the block so long, and so much memory beyond what the process has; raise Exceeded."""
    try:
        with _in_memory(memory_bytes), _in_time(seconds):
            yield
    except _Late:
        raise Exceeded("time") from None
    except MemoryError:
        raise Exceeded("memory") from None


@contextmanager
def _in_time(seconds: float) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGPROF, _late)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@contextmanager
def _in_memory(most: int) -> Iterator[None]:
    if sys.platform != "linux":
        yield
        return
    limits = resource.getrlimit(resource.RLIMIT_DATA)
    held = int(Path("/proc/self/statm").read_bytes().split()[STATM_DATA]) * resource.getpagesize()
    bounds = [bound for bound in (held + most, *limits) if bound != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min(bounds), limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, limits)


def _late(number: int, frame: FrameType | None) -> NoReturn:
    raise _Late
