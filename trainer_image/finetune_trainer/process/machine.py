"""What the container is given, read from its cgroup (v2) where there is one."""

from __future__ import annotations

import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def cpu_count(cgroup: Path = CGROUP) -> int:
    """Return the number of CPUs to use: those it may run on, or its quota if that is less."""
    allowed = len(os.sched_getaffinity(0))
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except OSError:
        return allowed
    return allowed if quota == "max" else max(1, min(allowed, int(quota) // int(period)))


def out_of_memory_kills(cgroup: Path = CGROUP) -> int:
    """Return how many processes of the container were killed for memory so far."""
    try:
        lines = (cgroup / "memory.events").read_text().splitlines()
    except OSError:
        return 0
    counts = dict(line.split() for line in lines)
    return int(counts.get("oom_kill", 0))


def memory_bytes(cgroup: Path = CGROUP, meminfo: Path = Path("/proc/meminfo")) -> int:
    """Return the memory to use: the machine's, or the container's limit if that is less."""
    total = next(line for line in meminfo.read_text().splitlines() if line.startswith("MemTotal:"))
    available = int(total.split()[1]) * 1024
    try:
        limit = (cgroup / "memory.max").read_text().strip()
    except OSError:
        return available
    return available if limit == "max" else min(available, int(limit))
