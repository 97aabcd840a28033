"""Landlock: this process may read some directories and files, and no others, for good.

Documentation/userspace-api/landlock. ABI 1 came with Linux 5.13; later ones refuse more, and what a
kernel does not know is not asked of it.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable
from pathlib import Path

from finetune_rewards.confine import kernel

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
VERSION_FLAG = 1
PATH_BENEATH = 1

WRITE_FILE, READ_FILE, READ_DIR = 1 << 1, 1 << 2, 1 << 3
# How many rights of file access each ABI knows: execute, write, read, make, remove, ...; then
# refer, truncate and device ioctls.
FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
TCP_ABI, SCOPE_ABI = 4, 6
ALL_TCP = 0b11  # bind, connect
ALL_SCOPES = 0b11  # abstract Unix sockets and signals to processes outside


def abi() -> int:
    """Return the kernel's Landlock ABI; 0 where there is none."""
    try:
        return kernel.call(CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(VERSION_FLAG))
    except OSError:
        return 0


def restrict(readable: Iterable[Path], devices: Iterable[Path]) -> None:
    """Leave this thread, and those it starts, certain paths, and none of them to execute.

    `readable` and what is beneath may be read, `devices` written too.
    """
    ruleset = _ruleset(abi())
    try:
        for path in readable:
            _allow(ruleset, path, READ_FILE | READ_DIR if path.is_dir() else READ_FILE)
        for path in devices:
            _allow(ruleset, path, READ_FILE | WRITE_FILE)
        kernel.call(RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    finally:
        os.close(ruleset)


def handled(version: int) -> bytes:
    """Return struct landlock_ruleset_attr with everything that an ABI can refuse."""
    rights = (1 << FILE_RIGHTS[min(version, max(FILE_RIGHTS))]) - 1
    attributes = struct.pack("=Q", rights)
    if version >= TCP_ABI:
        attributes += struct.pack("=Q", ALL_TCP)
    if version >= SCOPE_ABI:
        attributes += struct.pack("=Q", ALL_SCOPES)
    return attributes


def _ruleset(version: int) -> int:
    attributes = handled(version)
    return kernel.call(
        CREATE_RULESET,
        ctypes.c_char_p(attributes),
        ctypes.c_size_t(len(attributes)),
        ctypes.c_uint32(0),
    )


def _allow(ruleset: int, path: Path, access: int) -> None:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rule = struct.pack("=Qi", access, descriptor)
        kernel.call(
            ADD_RULE,
            ctypes.c_int(ruleset),
            ctypes.c_int(PATH_BENEATH),
            ctypes.c_char_p(rule),
            ctypes.c_uint32(0),
        )
    finally:
        os.close(descriptor)
