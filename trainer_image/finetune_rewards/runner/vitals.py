"""What a worker's process takes while it works, and how its threads give way to other processes.

The kernel shares cores among threads, not among processes: one that runs a hundred would leave its
neighbours a hundredth. So the more of its threads run at a time, the less weight each of them has.
"""

from __future__ import annotations

import contextlib
import math
import os
import resource
from pathlib import Path

MOST_THREADS = 128  # nothing else bounds those of root
# Beyond what a worker may allocate: what was relocated or written before it became read-only.
UNCOUNTED_BYTES = 256 * 2**20
FAIR_THREADS = 2  # that run at a time with full weight
LOOKS_PER_STATE = 5  # to look at each of a hundred threads takes milliseconds
MOST_NICE = 19
WEIGHT_OF_A_LEVEL = 1.25  # what a thread's weight is divided by for each (sched(7))
RUNNING = "R"
RESIDENT, SHARED = 1, 2  # in /proc/PID/statm, in pages


class Vitals:
    """Of one process, bound to some memory.

    They are read from its threads: what the kernel tells of a whole process begins with a name that
    it gave itself, and is nothing where its first thread has ended and others have not.
    """

    def __init__(self, pid: int, memory_bytes: int) -> None:
        self._threads = Path(f"/proc/{pid}/task")
        self._memory = memory_bytes
        self._looks = 0

    def excess(self) -> str | None:
        """Return what the process takes too much of; None if nothing, or if it has ended.

        Threads that are many are made to give way.
        """
        try:
            threads = list(self._threads.iterdir())
        except OSError:
            return None
        if len(threads) > MOST_THREADS:
            return f"the process had more than {MOST_THREADS} threads"
        if _own_bytes(threads) > self._memory + UNCOUNTED_BYTES:
            return f"the process took more than its {self._memory / 2**20:g} MiB"
        self._looks += 1
        if len(threads) > FAIR_THREADS and self._looks % LOOKS_PER_STATE == 0:
            level = nice_of(sum(_state(thread) == RUNNING for thread in threads))
            for thread in threads:
                _lower(int(thread.name), level)
        return None


def nice_of(running: int) -> int:
    """Return the nice value of threads of which so many run, so that together they weigh as few."""
    if running <= FAIR_THREADS:
        return 0
    return min(MOST_NICE, math.ceil(math.log(running / FAIR_THREADS, WEIGHT_OF_A_LEVEL)))


def _own_bytes(threads: list[Path]) -> int:
    """Return what the threads hold in memory that no file lends them; all have the same."""
    for thread in threads:
        with contextlib.suppress(OSError, IndexError):  # it ended
            pages = [int(word) for word in (thread / "statm").read_bytes().split()]
            if pages[RESIDENT]:
                return (pages[RESIDENT] - pages[SHARED]) * resource.getpagesize()
    return 0


def _state(thread: Path) -> str:
    try:
        # What stands in brackets is a name that the thread gave itself.
        return (thread / "stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except (OSError, IndexError):  # it ended
        return ""


def _lower(thread: int, level: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        # Without privileges there is no way back.
        if os.getpriority(os.PRIO_PROCESS, thread) < level:
            os.setpriority(os.PRIO_PROCESS, thread, level)
