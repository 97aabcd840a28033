"""Which rows make up the batch of a step: a pure function of seed and step, never of the layout.

An order is one of places: those of the rows in their files, left-out rows among them. An epoch
takes round(weight x places) places of each source, at least one, in an order of its own. A source
goes through all its places, in a new order each time, before it takes one again: with weight 2 an
epoch takes each row twice, with 0.5 two epochs take each row once. Batches run on from one epoch
into the next, so all are of as many places, except that the last of a run of `epochs` may be short.

A place whose row is left out stays empty: its batch has a row less, maybe none, and no other row
is moved, neither to another batch nor before or behind another row of its own. A batch's rows are
dealt to micro-batches in order of length, which keeps padding small.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from finetune_contract.recipe import TrainingRecipe
from finetune_trainer.batch.order import Indices, Permutation
from finetune_trainer.data.dataset import Dataset, Source

# Keeps the orders of epochs apart from those of sources, which are counted from 0.
_EPOCH_ORDER = 2**32
LEFT_OUT = -1


@dataclass(frozen=True)
class BatchOrder:
    """The order of the sources' rows under a recipe."""

    sources: tuple[Source, ...]
    global_batch_size: int
    seed: int
    steps: int
    last_row: int  # places to be taken in the whole run, repeats counted
    places: Indices | None = None  # of the rows in their sources; None where none is left out

    @classmethod
    def of(cls, recipe: TrainingRecipe, data: Dataset) -> BatchOrder:
        """Return the order of a run over a dataset."""
        size = recipe.global_batch_size
        if recipe.max_steps is not None:
            steps, last_row = recipe.max_steps, recipe.max_steps * size
        else:
            last_row = sum(source.taken for source in data.sources) * (recipe.epochs or 1)
            steps = math.ceil(last_row / size)
        places = data.places if any(source.left_out for source in data.sources) else None
        return cls(data.sources, size, recipe.seed, steps, last_row, places)

    def batch(self, step: int) -> Indices:
        """Return the dataset indices of a step's rows, maybe of none; step counts from 0."""
        rows = self.slots(step)
        here: Indices = rows[rows != LEFT_OUT]
        return here

    def slots(self, step: int) -> Indices:
        """Return the same, with LEFT_OUT wherever a place is empty."""
        start = step * self.global_batch_size
        positions = np.arange(start, min(start + self.global_batch_size, self.last_row))
        takes = np.array([source.taken for source in self.sources])
        ends = np.cumsum(takes)
        epochs, slots = np.divmod(positions, ends[-1])
        slots = _permuted(slots, epochs, int(ends[-1]), (self.seed, _EPOCH_ORDER))
        chosen = np.searchsorted(ends, slots, side="right")
        rows = np.empty_like(slots)
        first = 0
        for index, source in enumerate(self.sources):
            mine = chosen == index
            nth = epochs[mine] * takes[index] + slots[mine] - (ends[index] - takes[index])
            passes, entries = np.divmod(nth, source.places)
            places = _permuted(entries, passes, source.places, (self.seed, index))
            rows[mine] = self._rows_at(places, first, source.rows)
            first += source.rows
        return rows

    def _rows_at(self, places: Indices, first: int, count: int) -> Indices:
        """Return the dataset indices of rows by their places in a source of `count` rows."""
        if self.places is None:
            return first + places
        taken = self.places[first : first + count]
        found = np.searchsorted(taken, places).clip(max=count - 1)
        rows: Indices = np.where(taken[found] == places, first + found, LEFT_OUT)
        return rows


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


def _permuted(entries: Indices, rounds: Indices, size: int, key: tuple[int, int]) -> Indices:
    """Return entries of permutations of one size; each round has a permutation of its own."""
    values = np.empty_like(entries)
    for number in np.unique(rounds):
        at = rounds == number
        values[at] = Permutation(size, (*key, int(number)))(entries[at])
    return values
