"""The order in which a process confines itself, and what it goes without where a kernel lacks it.

Capabilities and limits come first: afterwards the filter refuses the calls that change them.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import sysconfig
from pathlib import Path

from finetune_rewards.confine import kernel, landlock, seccomp

SECCOMP = "seccomp"
LANDLOCK = "Landlock (Linux 5.13)"
MOST_FILES = 128  # each may be a socket, whose buffers no other limit counts
MOST_SIGNALS = 64  # that wait to be taken, of this user's processes together
STACK_BYTES = 8 * 2**20
# Of address space beyond the memory: what libraries map of their files. Torch with CUDA takes 3 GB.
MAPPED_BYTES = 32 * 2**30
SYSTEM_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64")
SYSTEM_FILES = (
    *("/etc/ld.so.cache", "/etc/ssl/openssl.cnf", "/usr/share/zoneinfo"),
    *("/dev/urandom", "/proc/cpuinfo"),
)
NULL = Path("/dev/null")  # some libraries open it to write


class Lacking(Exception):
    """The kernel can not confine this process; the message names what it lacks."""


def confine(memory_bytes: int, allow_unconfined: bool = False) -> tuple[str, ...]:
    """Confine this process, which must have one thread; return what its kernel lacks.

    With `allow_unconfined` it goes on without that; else Lacking is raised.
    """
    lacks = missing()
    if lacks and not allow_unconfined:
        raise Lacking(f"the kernel lacks {' and '.join(lacks)}")
    readable = interpreter_paths()
    try:
        _limit(memory_bytes)
        kernel.drop_capabilities()
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
        if LANDLOCK not in lacks:
            landlock.restrict(readable, [NULL])
        if SECCOMP not in lacks:
            seccomp.install()
    except OSError as error:
        raise Lacking(f"the kernel refused to confine the process: {error.strerror}") from error
    return lacks


def missing() -> tuple[str, ...]:
    """Return what this kernel lacks of what confines a process."""
    lacks = [] if seccomp.available() else [SECCOMP]
    return (*lacks, *([] if landlock.abi() else [LANDLOCK]))


def end_with_parent(parent: int) -> None:
    """Have the kernel kill this process once its parent, process `parent`, is gone."""
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it went before the kernel was told
        os.kill(os.getpid(), signal.SIGKILL)


def interpreter_paths() -> list[Path]:
    """Return what must be readable to import: Python, its packages, the libraries they load."""
    # Directories by themselves, not sys.prefix: that may be a home or the root of all.
    names = (*sys.path, sysconfig.get_config_var("LIBDIR"), *SYSTEM_LIBRARIES, *SYSTEM_FILES)
    paths = [Path(name) for name in names if name]
    return [path for path in paths if path.exists() and not path.samefile("/")]


def _limit(memory_bytes: int) -> None:
    for kind, most in (
        (resource.RLIMIT_DATA, memory_bytes),
        (resource.RLIMIT_STACK, STACK_BYTES),
        (resource.RLIMIT_AS, memory_bytes + MAPPED_BYTES),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_SIGPENDING, MOST_SIGNALS),
        (resource.RLIMIT_NOFILE, MOST_FILES),
    ):
        hard = resource.getrlimit(kind)[1]
        bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (bound, bound))
