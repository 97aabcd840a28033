"""A reward worker that confines itself in nothing: what it proves of an attack is that it works.

Started in place of `finetune_rewards.runner.worker`; only its confinement is missing.
"""

from __future__ import annotations

import sys
from pathlib import Path

from finetune_rewards.confine import process
from finetune_rewards.runner import worker
from finetune_rewards.runner.worker_process import COMMAND

UNCONFINED = (*COMMAND[: COMMAND.index("-m")], str(Path(__file__)))


def without_confinement(memory_bytes: int, allow_unconfined: bool = False) -> tuple[str, ...]:
    """Confine nothing."""
    return ()


if __name__ == "__main__":
    process.confine = without_confinement
    sys.exit(worker.main())
