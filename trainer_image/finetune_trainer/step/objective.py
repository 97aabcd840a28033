"""What a step minimises: the seam between the engine and a method's loss."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from finetune_trainer.batch.micro_batch import MicroBatch


class Objective(Protocol):
    """Turns log-probabilities of learned tokens into a loss summed over them.

    The engine divides it by the normaliser of the whole optimizer step. Logits are divided by
    `temperature` before. `stats` names what is counted beside the loss; with `entropy` the engine
    counts one more: the model's entropy, summed over learned tokens.
    """

    temperature: float
    stats: tuple[str, ...]
    entropy: bool

    def __call__(self, log_probs: Tensor, batch: MicroBatch) -> tuple[Tensor, Tensor]:
        """Return the summed loss, a scalar, and the sums of the stats, fp32 [S], detached.

        `log_probs` is fp32 [P], of the micro-batch's learned tokens.
        """
        ...
