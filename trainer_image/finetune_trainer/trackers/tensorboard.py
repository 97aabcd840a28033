"""TensorBoard event files, which are published beside the adapter.

They are local to the attempt, so each attempt writes the whole history anew.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from tensorboardX import SummaryWriter

from finetune_contract.reasons import Reason
from finetune_trainer.trackers.base import Point, Run

DIRECTORY = "tensorboard"


class TensorBoardTracker:
    """One directory of event files."""

    run_id: str | None = None  # files have none

    def __init__(self, run: Run, directory: Path) -> None:
        self._directory = directory / DIRECTORY
        self._run = run

    def open(self) -> None:
        """Start an empty directory."""
        shutil.rmtree(self._directory, ignore_errors=True)
        self._writer = SummaryWriter(str(self._directory))
        rows = "\n".join(f"| {key} | {value} |" for key, value in self._run.params.items())
        self._writer.add_text("recipe", f"| parameter | value |\n|---|---|\n{rows}", 0)

    def reached(self, key: str) -> int:
        """Return -1: the files begin empty."""
        return -1

    def log(self, points: Sequence[Point]) -> None:
        """Add points and put them on disk."""
        for point in points:
            self._writer.add_scalar(point.key, point.value, point.step, walltime=point.time)
        self._writer.flush()

    def close(self, reason: Reason) -> None:
        """Close the file."""
        self._writer.close()
