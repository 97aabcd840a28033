"""Which prompts a buffer is made of, and which replace those whose completions all score alike."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from finetune_contract.recipe import Recipe
from finetune_trainer.batch.batches import LEFT_OUT, BatchOrder
from finetune_trainer.batch.order import Indices
from finetune_trainer.data.dataset import Dataset
from finetune_trainer.methods.grpo.recipe import grpo_of

_SPARE = 2**64  # added to the seed, keeps the order of replacements apart from that of epochs
_ENDLESS = 2**62


@dataclass(frozen=True)
class PromptOrder:
    """The prompts of buffers. An epoch takes each row once; replacements come on top of it."""

    chosen: BatchOrder
    spare: BatchOrder
    steps: int  # optimizer steps of the whole run
    rounds: int  # in which a buffer's groups may be replaced

    @classmethod
    def of(cls, recipe: Recipe, data: Dataset) -> PromptOrder:
        """Return the order of a run over a dataset of prompts."""
        training, grpo = recipe.training, grpo_of(recipe)
        steps, iterations = training.max_steps, grpo.iterations
        update = {
            "global_batch_size": training.global_batch_size // grpo.group_size,
            "max_steps": None if steps is None else -(-steps // iterations),
        }
        chosen = BatchOrder.of(training.model_copy(update=update), data)
        return cls(
            chosen,
            replace(chosen, seed=chosen.seed + _SPARE, last_row=_ENDLESS),
            chosen.steps * iterations if steps is None else steps,
            grpo.max_resamples,
        )

    def rows(self, buffer: int) -> Indices:
        """Return the dataset indices of a buffer's prompts.

        The last of a run may have fewer, and one whose rows are left out fewer or none.
        """
        return self.chosen.batch(buffer)

    def slots(self, buffer: int) -> Indices:
        """Return where in the buffer each of its prompts would stand if none were left out."""
        return np.flatnonzero(self.chosen.slots(buffer) != LEFT_OUT)

    def replacements(self, buffer: int, attempt: int, count: int, taken: Indices) -> Indices:
        """Return at most `count` rows for a round, from 1: fewer where there rows are left out.

        Those not in `taken` come first.
        """
        rows = self.spare.batch(buffer * self.rounds + attempt - 1)
        return rows[np.argsort(np.isin(rows, taken), kind="stable")][:count]
