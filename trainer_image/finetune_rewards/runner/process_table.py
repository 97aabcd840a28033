"""What the kernel tells of a process in /proc (proc(5)); nothing of one that is gone."""

from __future__ import annotations

import os
import resource
from pathlib import Path


def threads(pid: int) -> int:
    """Return how many a process has."""
    return int(_stat(pid)[17])


def cpu_seconds(pid: int) -> float:
    """Return how long a process has used a core, for itself and in the kernel."""
    user, system = _stat(pid)[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def own_bytes(pid: int) -> int:
    """Return how much memory a process has that is no file's."""
    try:
        _, resident, shared, *_ = Path("/proc", str(pid), "statm").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return (int(resident) - int(shared)) * resource.getpagesize()


def _stat(pid: int) -> list[str]:
    """Return the fields of proc(5)'s stat from the third on; zeros once the process is gone."""
    try:
        text = Path("/proc", str(pid), "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ["0"] * 50
    return text.rpartition(")")[2].split()
