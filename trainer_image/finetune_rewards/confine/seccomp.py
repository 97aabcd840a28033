"""A seccomp filter that lets through what computing needs (Documentation/userspace-api/seccomp).

Everything that is not listed fails with EPERM, numbers newer than most kernels with ENOSYS, so that
libraries fall back. A foreign architecture's call ends the process: its numbers mean other calls.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from finetune_rewards.confine import kernel
from finetune_rewards.confine.syscalls import ALLOWED, BY_ARGUMENT, Numbers

LOAD, AND, EQUAL, AT_LEAST, RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
ALLOW = 0x7FFF0000
KILL = 0x80000000
EPERM = 0x00050000 | 1
ENOSYS = 0x00050000 | 38

NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
X32 = 0x40000000  # a flag of x86_64 call numbers
UNIFIED = 424  # from here on a call has one number on every architecture
MODE_FILTER = 2

CLONE_THREAD = 0x00010000
# CLONE_PTRACE, and the namespaces: NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
CLONE_REFUSED = 0x00002000 | 0x00020000 | 0x02000000 | 0x7C000000
TYPE_MASK = 0xF  # of a socket's type, without its flags
F_DUPFD_CLOEXEC, F_GETPIPE_SZ = 1030, 1032
# F_SETOWN and F_SETSIG would let a pipe send a signal to another process.
FCNTL = (0, 1, 2, 3, 4, F_DUPFD_CLOEXEC, F_GETPIPE_SZ)
# TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX
IOCTL = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
# RLIMIT_DATA counts neither shared memory nor what grows like a stack, and a process's resident
# memory no huge pages.
MAP_GROWSDOWN, MAP_HUGETLB = 0x100, 0x40000
MAPPING = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_HUGETLB
MAPPED = (0, mmap.MAP_SHARED, mmap.MAP_ANONYMOUS)  # a file, a file's pages themselves, memory
# What of a file's opening decides whether it is emptied.
OPENING = os.O_TRUNC | os.O_ACCMODE
# Only what is opened to write may be emptied, for Landlock knows what that is. It knows nothing of
# O_RDONLY | O_TRUNC before its ABI 3, and takes the access mode 3 for neither reading nor writing.
OPENED = (
    *(os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_ACCMODE),
    *(os.O_WRONLY | os.O_TRUNC, os.O_RDWR | os.O_TRUNC),
)
# PR_SET_NAME, PR_GET_NAME, PR_CAPBSET_READ, PR_GET_NO_NEW_PRIVS, PR_SET_VMA
PRCTL = (15, 16, 23, 39, 0x53564D41)


@dataclass(frozen=True)
class Test:
    """Whether an argument's low or high 32 bits, masked, are one of some values."""

    argument: int
    values: tuple[int, ...]
    mask: int = 0xFFFFFFFF
    high: bool = False

    def instructions(self) -> Iterator[bytes]:
        """Yield the test; it falls through where it holds and returns EPERM where not."""
        yield _statement(LOAD, ARGUMENTS + 8 * self.argument + 4 * self.high)
        yield _statement(AND, self.mask)
        for position, value in enumerate(self.values):
            yield _jump(EQUAL, value, len(self.values) - position, 0)
        yield _statement(RETURN, EPERM)


def tests(pid: int) -> dict[str, tuple[Test, ...]]:
    """Return what must hold of the arguments of the calls in BY_ARGUMENT, for process `pid`."""
    return {
        "mmap": (Test(3, MAPPED, MAPPING),),
        "open": (Test(1, OPENED, OPENING),),
        "openat": (Test(2, OPENED, OPENING),),
        "clone": (Test(0, (CLONE_THREAD,), CLONE_THREAD | CLONE_REFUSED),),
        # Datagram sockets could be sent to other sockets' addresses.
        "socketpair": (
            Test(0, (socket.AF_UNIX,)),
            Test(1, (socket.SOCK_STREAM,), TYPE_MASK),
        ),
        "kill": (Test(0, (pid,)),),
        "tgkill": (Test(0, (pid,)),),
        "prctl": (Test(0, PRCTL),),
        # To be read, not to be set.
        "prlimit64": (Test(0, (0, pid)), Test(2, (0,)), Test(2, (0,), high=True)),
        "ioctl": (Test(1, IOCTL),),
        "fcntl": (Test(1, FCNTL),),
    }


def program(machine: str, pid: int) -> bytes:
    """Return the filter as an array of struct sock_filter; raise KeyError for another machine."""
    return b"".join(_program(machine, pid))


def _program(machine: str, pid: int) -> Iterator[bytes]:
    architecture = kernel.AUDIT_ARCH[machine]
    yield _statement(LOAD, ARCHITECTURE)
    yield _jump(EQUAL, architecture, 1, 0)
    yield _statement(RETURN, KILL)
    yield _statement(LOAD, NUMBER)
    yield _jump(AT_LEAST, X32, 0, 1)
    yield _statement(RETURN, KILL)
    for number in _numbers(ALLOWED, machine).values():
        yield _jump(EQUAL, number, 0, 1)
        yield _statement(RETURN, ALLOW)
    asked = tests(pid)
    for name, number in _numbers(BY_ARGUMENT, machine).items():
        block = [part for test in asked[name] for part in test.instructions()]
        block.append(_statement(RETURN, ALLOW))
        yield _jump(EQUAL, number, 0, len(block))
        yield from block
    yield _jump(AT_LEAST, UNIFIED, 0, 1)
    yield _statement(RETURN, ENOSYS)
    yield _statement(RETURN, EPERM)


def available() -> bool:
    """Tell whether this kernel and machine can filter system calls."""
    if kernel.machine() not in kernel.AUDIT_ARCH:
        return False
    try:
        kernel.prctl(kernel.PR_GET_SECCOMP)
    except OSError:
        return False
    return True


def install() -> None:
    """Filter this thread's calls, and those of threads it starts; needs no_new_privs."""
    code = program(kernel.machine(), os.getpid())
    kept = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog, padded as the machine's pointers ask
    fprog = struct.pack("@HP", len(code) // 8, ctypes.addressof(kept))
    kernel.prctl(kernel.PR_SET_SECCOMP, MODE_FILTER, ctypes.c_char_p(fprog))


def _numbers(table: Numbers, machine: str) -> dict[str, int]:
    column = ("x86_64", "aarch64").index(machine)
    return {name: found for name, both in table.items() if (found := both[column]) is not None}


def _statement(code: int, value: int) -> bytes:
    return struct.pack("=HBBI", code, 0, 0, value)


def _jump(code: int, value: int, then: int, otherwise: int) -> bytes:
    return struct.pack("=HBBI", code, then, otherwise, value)
