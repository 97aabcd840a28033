"""Why a runner could not begin to serve: a file beside its socket, for whoever waits there."""

from __future__ import annotations

import json
import os
from pathlib import Path

from finetune_contract.reasons import Reason
from finetune_rewards.runner.protocol import Problem


def tell_start_failure(socket: Path, problem: Problem) -> None:
    """Leave the reason beside the socket, whole or not at all; raise OSError."""
    whole = _path(socket)
    part = whole.with_suffix(".part")
    part.write_text(json.dumps(problem))
    os.replace(part, whole)


def start_failure(socket: Path) -> Problem | None:
    """Return why no runner serves at the socket; None if none said so."""
    try:
        reason, message = json.loads(_path(socket).read_text())
    except FileNotFoundError:
        return None
    return Problem(Reason(reason), message)


def forget_start_failure(socket: Path) -> None:
    """Take away what a runner that was before left."""
    _path(socket).unlink(missing_ok=True)


def _path(socket: Path) -> Path:
    return socket.with_suffix(".failure")
