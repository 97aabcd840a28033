"""What a worker's process takes while it works, and how its threads give way to other processes.

The kernel shares cores among threads, not among processes: one that runs a hundred would leave its
neighbours a hundredth. So the more of its threads run at a time, the less weight each of them has.
"""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path

import psutil

MOST_THREADS = 128  # nothing else bounds those of root
# Beyond what a worker may allocate: what was relocated or written before it became read-only.
UNCOUNTED_BYTES = 256 * 2**20
FAIR_THREADS = 2  # that run at a time with full weight
MOST_NICE = 19
WEIGHT_OF_A_LEVEL = 1.25  # what a thread's weight is divided by for each (sched(7))
RUNNING = "R"


class Vitals:
    """Of one process, bound to some memory."""

    def __init__(self, pid: int, memory_bytes: int) -> None:
        self._pid = pid
        self._process = psutil.Process(pid)
        self._memory = memory_bytes

    def excess(self) -> str | None:
        """Return what the process takes too much of; None if nothing. Raises psutil.NoSuchProcess.

        Threads that are many are made to give way.
        """
        memory, threads = self._process.memory_info(), self._process.num_threads()
        if threads > MOST_THREADS:
            return f"the process had more than {MOST_THREADS} threads"
        if memory.rss - memory.shared > self._memory + UNCOUNTED_BYTES:
            return f"the process took more than its {self._memory / 2**20:g} MiB"
        if threads > FAIR_THREADS:
            self._give_way()
        return None

    def _give_way(self) -> None:
        with contextlib.suppress(OSError):  # the process ends
            tasks = list(Path(f"/proc/{self._pid}/task").iterdir())
            level = nice_of(sum(_state(task) == RUNNING for task in tasks))
            for task in tasks:
                _lower(int(task.name), level)


def nice_of(running: int) -> int:
    """Return the nice value of threads of which so many run, so that together they weigh as few."""
    if running <= FAIR_THREADS:
        return 0
    return min(MOST_NICE, math.ceil(math.log(running / FAIR_THREADS, WEIGHT_OF_A_LEVEL)))


def _state(task: Path) -> str:
    try:
        # What stands in brackets is a name that the thread gave itself.
        return (task / "stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except (OSError, IndexError):  # it ended
        return ""


def _lower(thread: int, level: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        # Without privileges there is no way back.
        if os.getpriority(os.PRIO_PROCESS, thread) < level:
            os.setpriority(os.PRIO_PROCESS, thread, level)
