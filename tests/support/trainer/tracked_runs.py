"""Attempts of one job whose curves go to a tracker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from finetune_trainer.course.telemetry import StepRecord, Telemetry
from finetune_trainer.course.tracking import Pace
from support.trainer.runs import run_config

# Sends at once, and waits for what would be given up on a busy machine.
PROMPT = Pace(send=0.02, longest_wait=0.05, close=60.0)
CANARY = "canary01234567890123456789012345678901234567"[:40]  # as long as W&B's keys


class Runs:
    """Starts attempts of one job with a tracker; the keys of all trackers are in `secret`."""

    def __init__(self, directory: Path, kind: str, uri: str | None = None) -> None:
        self.directory = directory
        self.tracking = {"type": kind, "project": "team", **({"uri": uri} if uri else {})}
        self.secret = directory / "secret"
        self.secret.mkdir()
        for key in ("MLFLOW_TRACKING_TOKEN", "WANDB_API_KEY"):
            (self.secret / key).write_text(CANARY + "\n")

    def start(self, attempt: int = 1, step: int = 0, pace: Pace = PROMPT, **kept: Any) -> Telemetry:
        config = run_config(
            self.directory / f"attempt-{attempt}",
            data="s3://bucket/train.jsonl",
            attempt=attempt,
            tracking=self.tracking,
            credentials={"tracking": str(self.secret)},
        )
        telemetry = Telemetry(config, {}, pace)
        telemetry.go_on(**{"run_id": None, "history": b"", "step": step, **kept})
        return telemetry


def train(telemetry: Telemetry, first: int, last: int) -> None:
    """Tell of steps whose losses are `losses(first, last)`."""
    for number in range(first, last + 1):
        telemetry.step(StepRecord(number, 1 / number, 0.5, 1e-4, 100, 50, 0.25))


def losses(first: int, last: int) -> list[tuple[int, float]]:
    return [(number, 1 / number) for number in range(first, last + 1)]
