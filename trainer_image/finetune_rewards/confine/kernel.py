"""Calls of the Linux kernel that Python has no function for."""

from __future__ import annotations

import ctypes
import os
import platform

_libc = ctypes.CDLL(None, use_errno=True)

# By machine: what seccomp calls the architecture (linux/audit.h).
AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

PR_SET_PDEATHSIG = 1
PR_GET_SECCOMP = 21
PR_SET_SECCOMP = 22
PR_SET_NO_NEW_PRIVS = 38

_CAPABILITY_VERSION = 0x20080522
_CAP_DAC_READ_SEARCH = 2


class Capabilities(ctypes.Structure):
    """Two words each of `struct __user_cap_data_struct`."""

    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def machine() -> str:
    """Return the machine's architecture as the kernel names it."""
    return platform.machine()


def call(number: int, *arguments: object) -> int:
    """Make a system call; raise OSError where it fails."""
    return _checked(_libc.syscall(ctypes.c_long(number), *arguments))


def prctl(option: int, *arguments: object) -> int:
    """Call prctl with up to four arguments; raise OSError where it fails."""
    words = [*arguments, *[0] * (4 - len(arguments))]
    return _checked(
        _libc.prctl(option, *(ctypes.c_ulong(w) if isinstance(w, int) else w for w in words))
    )


def drop_capabilities() -> None:
    """Give up what root may do; files that root may read stay readable, subject to Landlock."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    held = (Capabilities * 2)()
    _checked(_libc.capget(header, held))
    kept = held[0].permitted & (1 << _CAP_DAC_READ_SEARCH)
    asked = (Capabilities * 2)(Capabilities(kept, kept, 0))
    _checked(_libc.capset(header, asked))


def _checked(result: int) -> int:
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
