"""A reward worker on a kernel that lacks something.

`lacking_worker.py seccomp|landlock|truncate|nothing READABLE PARENT`; a kernel older than Linux 6.2
does not know the right to truncate. READABLE is one more directory that the worker may read.
"""

from __future__ import annotations

import sys
from pathlib import Path

from finetune_rewards.confine import landlock, seccomp
from finetune_rewards.runner import worker
from finetune_rewards.runner.worker_process import COMMAND


def lacking(what: str, readable: Path = Path("/lib")) -> tuple[str, ...]:
    """Return the command of a worker whose kernel lacks `what`."""
    return (*COMMAND[: COMMAND.index("-m")], str(Path(__file__)), what, str(readable))


if __name__ == "__main__":
    what, readable = sys.argv.pop(1), sys.argv.pop(1)
    sys.path.append(readable)
    if what == "seccomp":
        seccomp.available = lambda: False
    elif what != "nothing":
        landlock.abi = lambda: {"landlock": 0, "truncate": 2}[what]
    worker.main()
