"""Where a pod's ranks find the isolated reward runner, and when its launcher has to start one."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tempfile
from pathlib import Path

from finetune_contract.layout import Layout, RewardRunner
from finetune_contract.reasons import Reason
from finetune_contract.runconfig import RunConfig
from finetune_rewards.runner.child import runner_child
from finetune_trainer.methods.grpo.recipe import grpo_of
from finetune_trainer.process.errors import Failure

LONGEST_ADDRESS = 100  # bytes; a Unix socket's path may have 107


def socket_path(layout: Layout, node: int) -> Path:
    """Return the address of a node's runner: the layout's, or else the launcher's own."""
    runner = layout.reward_runner
    if runner is not None and runner.socket is not None:
        return Path(runner.socket)
    path = Path(layout.scratch_dir, f"rewards-{node}.sock").absolute()
    if len(os.fsencode(path)) <= LONGEST_ADDRESS:
        return path
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    return _own_directory() / f"{digest}.sock"


def _own_directory() -> Path:
    """Return a directory for short addresses that is this user's alone, whoever else has /tmp."""
    path = Path(tempfile.gettempdir(), f"finetune-{os.getuid()}")
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or (found.st_uid, found.st_mode & 0o077) != (os.getuid(), 0):
        raise Failure(
            Reason.SANDBOX_UNAVAILABLE,
            f"{path} must be a directory that only this user can enter: remove it, or set TMPDIR",
        )
    return path


def own_socket_path(layout: Layout) -> Path:
    """Return the address for this rank, by torchrun's GROUP_RANK: the node's."""
    return socket_path(layout, int(os.environ.get("GROUP_RANK", "0")))


def launched_runner(config: RunConfig, node: int) -> contextlib.AbstractContextManager[None]:
    """Return what starts and ends a runner, where the recipe needs one and none is beside us."""
    runner = config.layout.reward_runner or RewardRunner()
    if runner.socket is not None:
        return contextlib.nullcontext()
    isolated = [reward for reward in grpo_of(config.recipe).rewards if reward.isolated]
    if not isolated:
        return contextlib.nullcontext()
    sources = {name: Path(path).absolute() for name, path in (runner.sources or {}).items()}
    return runner_child(isolated, sources, socket_path(config.layout, node))
