"""Which rows make up the batch of a step: a pure function of seed and step, never of the layout.

Every epoch is a shuffle of its own; batches run on from one epoch into the next, so every row is
seen exactly once per epoch and no batch is short, except that the last of a run of `epochs` may be.
A batch's rows are dealt to micro-batches in order of length, which keeps padding small.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from finetune_contract.recipe import TrainingRecipe

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class BatchPlan:
    """The order of `rows` rows under a recipe."""

    rows: int
    global_batch_size: int
    seed: int
    steps: int
    last_row: int  # rows to be seen in the whole run, repeats counted

    @classmethod
    def of(cls, recipe: TrainingRecipe, rows: int) -> BatchPlan:
        """Return the plan of a run over a dataset."""
        size = recipe.global_batch_size
        if recipe.max_steps is not None:
            return cls(rows, size, recipe.seed, recipe.max_steps, recipe.max_steps * size)
        total = rows * (recipe.epochs or 1)
        return cls(rows, size, recipe.seed, math.ceil(total / size), total)

    def batch(self, step: int) -> Indices:
        """Return the dataset indices of a step's rows; step counts from 0."""
        start = step * self.global_batch_size
        positions = np.arange(start, min(start + self.global_batch_size, self.last_row))
        epochs = positions // self.rows
        return np.concatenate(
            [
                _shuffle(self.seed, int(epoch), self.rows)[positions[epochs == epoch] % self.rows]
                for epoch in np.unique(epochs)
            ]
        )


def deal(
    batch: Indices, lengths: Indices, *, rank: int, world: int, micro_batch_size: int, passes: int
) -> list[Indices]:
    """Return one rank's micro-batches, `passes` of them; the last may hold fewer rows, or none.

    In each pass the ranks together take the next longest rows, so that none waits for another.
    """
    ordered = batch[np.argsort(-lengths, kind="stable")]
    per_pass = micro_batch_size * world
    return [
        ordered[start : start + per_pass][rank::world]
        for start in range(0, passes * per_pass, per_pass)
    ]


@lru_cache(maxsize=2)  # a batch touches two epochs at most, unless an epoch is very small
def _shuffle(seed: int, epoch: int, rows: int) -> Indices:
    return np.random.default_rng([seed, epoch]).permutation(rows)
