"""Supervised fine-tuning: the negative log-likelihood of the learned tokens."""

from __future__ import annotations

from torch import Tensor

from finetune_trainer.batch.micro_batch import MicroBatch


class SupervisedObjective:
    """The sum of -weight * log-probability; a weight is 1, padding's 0."""

    temperature = 1.0
    stats: tuple[str, ...] = ()
    entropy = False

    def __call__(self, log_probs: Tensor, batch: MicroBatch) -> tuple[Tensor, Tensor]:
        """Return the summed loss, and no stats."""
        return -(batch.weights * log_probs).sum(), log_probs.new_empty(0)
