"""Supervised fine-tuning at work: the negative log-likelihood of the learned tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from finetune_trainer.batch.micro_batch import MicroBatch
from finetune_trainer.data.dataset import Dataset
from finetune_trainer.methods.base import Learning
from finetune_trainer.methods.sft.feed import SupervisedFeed
from finetune_trainer.run import ResolvedRun
from finetune_trainer.step.engine import Engine
from finetune_trainer.step.feed import Feed


class SupervisedObjective:
    """The sum of -weight * log-probability; a weight is 1, padding's 0."""

    temperature = 1.0
    stats: tuple[str, ...] = ()
    entropy = False

    def __call__(self, log_probs: Tensor, batch: MicroBatch) -> tuple[Tensor, Tensor]:
        """Return the summed loss, and no stats."""
        return -(batch.weights * log_probs).sum(), log_probs.new_empty(0)


class SftLearning(Learning):
    """Steps over encoded rows."""

    objective = SupervisedObjective()

    def feed(
        self, run: ResolvedRun, engine: Engine, model: Any, data: Dataset, directory: Path
    ) -> Feed:
        """Return the rows' batches."""
        return SupervisedFeed(run, data)
