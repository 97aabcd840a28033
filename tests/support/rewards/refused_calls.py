"""Work without some system calls, in a thread that a seccomp filter keeps from them."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from finetune_rewards.confine import kernel

T = TypeVar("T")

# (x86_64, aarch64), of the kernel's tables.
CALLS = {
    "capget": (125, 90),
    "capset": (126, 91),
    "prctl": (157, 167),
    "prlimit64": (302, 261),
    "landlock_create_ruleset": (444, 444),
}
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, ENOSYS = 0x7FFF0000, 0x00050026
MODE_FILTER = 2


def without(calls: tuple[str, ...], work: Callable[[], T]) -> T:
    """Return what `work` does where the kernel says of these calls that it has them not."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: (_refuse(calls), work())[1]).result()


def _refuse(calls: tuple[str, ...]) -> None:
    machine = ("x86_64", "aarch64").index(kernel.machine())
    lines = [(LOAD, 0, 0, 0)]
    for name in calls:
        lines += [(EQUAL, 0, 1, CALLS[name][machine]), (RETURN, 0, 0, ENOSYS)]
    lines.append((RETURN, 0, 0, ALLOW))
    code = b"".join(struct.pack("=HBBI", *line) for line in lines)
    kept = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("@HP", len(lines), ctypes.addressof(kept))
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    kernel.prctl(kernel.PR_SET_SECCOMP, MODE_FILTER, ctypes.c_char_p(program))
