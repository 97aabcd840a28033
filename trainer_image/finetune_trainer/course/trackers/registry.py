"""Which class serves which tracker of the contract."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from finetune_contract.layout import Tracking, TrackingType
from finetune_trainer.course.trackers.base import Run, Tracker

Make = Callable[[Tracking, Run, str | None, Path], Tracker]


def make_tracker(
    tracking: Tracking, run: Run, credentials_dir: str | None, directory: Path
) -> Tracker:
    """Return the tracker, not yet opened; it may keep files below `directory`."""
    return TRACKERS[tracking.type](tracking, run, credentials_dir, directory)


def _mlflow(tracking: Tracking, run: Run, credentials_dir: str | None, directory: Path) -> Tracker:
    from finetune_trainer.course.trackers.mlflow import MlflowTracker

    assert tracking.uri is not None, "the API asks for it"
    return MlflowTracker(tracking.uri, run, credentials_dir)


def _wandb(tracking: Tracking, run: Run, credentials_dir: str | None, directory: Path) -> Tracker:
    from finetune_trainer.course.trackers.wandb import WandbTracker

    return WandbTracker(tracking.uri, run, credentials_dir, directory)


def _tensorboard(
    tracking: Tracking, run: Run, credentials_dir: str | None, directory: Path
) -> Tracker:
    from finetune_trainer.course.trackers.tensorboard import TensorBoardTracker

    return TensorBoardTracker(run, directory)


TRACKERS: dict[TrackingType, Make] = {
    TrackingType.MLFLOW: _mlflow,
    TrackingType.WANDB: _wandb,
    TrackingType.TENSORBOARD: _tensorboard,
}
