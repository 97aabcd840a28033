"""A reward worker on a kernel that lacks something: `lacking_worker.py seccomp|landlock PARENT`."""

from __future__ import annotations

import sys
from pathlib import Path

from finetune_rewards import worker
from finetune_rewards.confine import landlock, seccomp
from finetune_rewards.worker_process import COMMAND


def lacking(what: str) -> tuple[str, ...]:
    """Return the command of a worker whose kernel lacks `what`."""
    return (*COMMAND[: COMMAND.index("-m")], str(Path(__file__)), what)


if __name__ == "__main__":
    if sys.argv.pop(1) == "seccomp":
        seccomp.available = lambda: False
    else:
        landlock.abi = lambda: 0
    worker.main()
