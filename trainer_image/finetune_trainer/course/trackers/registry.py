"""Which class serves which tracker of the contract."""

from __future__ import annotations

from pathlib import Path

from finetune_contract.layout import Tracking, TrackingType
from finetune_trainer.course.trackers.base import Run, Tracker


def make_tracker(
    tracking: Tracking, run: Run, credentials_dir: str | None, directory: Path
) -> Tracker:
    """Return the tracker, not yet opened; it may keep files below `directory`."""
    match tracking.type:
        case TrackingType.MLFLOW:
            from finetune_trainer.course.trackers.mlflow import MlflowTracker

            assert tracking.uri is not None, "the API asks for it"
            return MlflowTracker(tracking.uri, run, credentials_dir)
        case TrackingType.WANDB:
            from finetune_trainer.course.trackers.wandb import WandbTracker

            return WandbTracker(tracking.uri, run, credentials_dir, directory)
        case TrackingType.TENSORBOARD:
            from finetune_trainer.course.trackers.tensorboard import TensorBoardTracker

            return TensorBoardTracker(run, directory)
