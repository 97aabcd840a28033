"""TensorBoard event files, which are published beside the adapter.

They are local to the attempt, so each attempt writes the whole history anew. tensorboardX'
SummaryWriter has a queue that its flush does not wait for, so events are written below it.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.summary import scalar, text

from finetune_contract.reasons import Reason
from finetune_trainer.course.trackers.base import Point, Run

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
        self._directory.mkdir(parents=True)
        self._writer = EventsWriter(str(self._directory / "events"))
        rows = "\n".join(f"| {key} | {value} |" for key, value in self._run.params.items())
        recipe = text("recipe", f"| parameter | value |\n|---|---|\n{rows}")
        self._writer.write_event(Event(wall_time=time.time(), summary=recipe))
        self._writer.flush()

    def reached(self, key: str) -> int:
        """Return -1: the files begin empty."""
        return -1

    def log(self, points: Sequence[Point]) -> None:
        """Add points and put them on disk."""
        for point in points:
            summary = scalar(point.key, point.value)
            self._writer.write_event(Event(wall_time=point.time, step=point.step, summary=summary))
        self._writer.flush()

    def close(self, reason: Reason) -> None:
        """Close the file."""
        self._writer.close()
