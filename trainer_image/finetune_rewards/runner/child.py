"""A runner as a child of this process, for whoever has none beside it.

It runs in a session of its own, so that Ctrl-C does not reach it before its parent is done, without
its parent's environment, and ends when its parent does, however that ends.
"""

from __future__ import annotations

import contextlib
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from finetune_contract.model import canonical_json
from finetune_contract.reasons import Reason
from finetune_contract.rewards import Reward
from finetune_rewards.runner.protocol import Problem
from finetune_rewards.runner.start_failure import (
    forget_start_failure,
    start_failure,
    tell_start_failure,
)

log = logging.getLogger(__name__)

PAUSE_SECONDS = 1.0  # before another one takes the place of one that ended
STOP_SECONDS = 10.0


@contextlib.contextmanager
def runner_child(
    rewards: Sequence[Reward], sources: Mapping[str, Path], socket: Path, *, quiet: bool = False
) -> Iterator[None]:
    """Have a runner at `socket`, for as long as the block lasts.

    A file with the rewards is written beside the socket; `sources` are by the reward's name. A
    `quiet` one logs no more than what nobody who asks it is told.
    """
    described = socket.with_suffix(".json")
    described.parent.mkdir(parents=True, exist_ok=True)
    described.write_text(
        canonical_json([reward.model_dump(mode="json", by_alias=True) for reward in rewards])
    )
    command = [sys.executable, "-s", "-P", "-m", "finetune_rewards", "serve", "--until-eof"]
    command += ["--rewards", str(described), "--socket", str(socket)]
    for name, path in sources.items():
        command += ["--source", f"{name}={path}"]
    command += ["--quiet"] if quiet else []
    socket.unlink(missing_ok=True)
    forget_start_failure(socket)
    child = _Child(command, socket)
    try:
        yield
    finally:
        child.stop()


class _Child:
    """A process that is started again when it ends."""

    def __init__(self, command: Sequence[str], socket: Path) -> None:
        self._command = command
        self._socket = socket
        self._stopping = threading.Event()
        self._starting = threading.Lock()
        self._process = self._started()
        self._keeper = threading.Thread(target=self._keep, name="reward-runner", daemon=True)
        self._keeper.start()

    def stop(self) -> None:
        """End it; its workers end with it."""
        with self._starting:  # afterwards no other is started
            self._stopping.set()
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._keeper.join()

    def _started(self) -> subprocess.Popen[bytes]:
        # It waits for the end of its input, which comes with this process's own.
        return subprocess.Popen(
            self._command, stdin=subprocess.PIPE, env={}, start_new_session=True
        )

    def _keep(self) -> None:
        while True:
            status = self._process.wait()
            self._tell(status)
            self._stopping.wait(PAUSE_SECONDS)
            with self._starting:
                if self._stopping.is_set():
                    return
                log.error("the reward runner ended with %d; another one is started", status)
                self._process = self._started()

    def _tell(self, status: int) -> None:
        """Say that it ended by itself before it listened, where it could not say so."""
        if status > 0 and not self._socket.exists() and start_failure(self._socket) is None:
            said = f"the reward runner ended with exit code {status} at its start; its log says why"
            tell_start_failure(self._socket, Problem(Reason.REWARD_UNAVAILABLE, said))
