"""Supervised fine-tuning at work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from finetune_trainer.data.dataset import Dataset
from finetune_trainer.methods.base import Learning
from finetune_trainer.methods.sft.feed import SupervisedFeed
from finetune_trainer.methods.sft.objective import SupervisedObjective
from finetune_trainer.run import ResolvedRun
from finetune_trainer.step.engine import Engine
from finetune_trainer.step.feed import Feed


class SftLearning(Learning):
    """Steps over encoded rows."""

    def __init__(self) -> None:
        self.objective = SupervisedObjective()

    def feed(
        self, run: ResolvedRun, engine: Engine, model: Any, data: Dataset, directory: Path
    ) -> Feed:
        """Return the rows' batches."""
        return SupervisedFeed(run, data)
