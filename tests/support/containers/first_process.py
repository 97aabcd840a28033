"""A command as a container runs it: its namespace's first process, as a user without a name."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import psutil

USER = 65532  # of the images


def as_first_process(command: Sequence[str], directory: Path) -> list[str]:
    """Return what runs `command` as PID 1 and as `USER`, whom /etc/passwd does not know.

    Its exit code is the command's. `directory` is for a file.
    """
    passwd = directory / "passwd"
    passwd.write_text("root:x:0:0:root:/root:/bin/sh\n")
    user = ("unshare", "--user", f"--map-user={USER}", f"--map-group={USER}", "--", *command)
    inner = f"mount --bind {shlex.quote(str(passwd))} /etc/passwd && exec {shlex.join(user)}"
    namespaces = ("--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child")
    return ["unshare", *namespaces, "sh", "-c", inner]


def first_process(outer: int) -> psutil.Process:
    """Return the command's own process below the one that was started."""
    (inner,) = psutil.Process(outer).children()
    return inner
