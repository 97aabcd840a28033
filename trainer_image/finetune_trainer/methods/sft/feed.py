"""Batches of encoded rows, all known from the start: a function of the recipe and the step."""

from __future__ import annotations

from collections.abc import Callable

from finetune_contract.checkpoint import TrainingState
from finetune_trainer.batch.batches import BatchOrder, deal
from finetune_trainer.batch.micro_batch import MicroBatch
from finetune_trainer.batch.order import Indices
from finetune_trainer.data.dataset import Dataset
from finetune_trainer.run import ResolvedRun
from finetune_trainer.step.feed import EMPTY, Feed, StepBatch


class SupervisedFeed(Feed):
    """Feeds rows in the order of a BatchOrder; needs no state of its own."""

    def __init__(self, run: ResolvedRun, data: Dataset) -> None:
        self._run = run
        self._data = data
        self._order = BatchOrder.of(run.config.recipe.training, data)
        self._step = 0

    @property
    def steps(self) -> int:
        """Return the optimizer steps of the whole run."""
        return self._order.steps

    def batch(self, state: TrainingState, stops: Callable[[], bool]) -> StepBatch:
        """Return this rank's share of the step after `state`, counted over all rows of the step."""
        self._step = state.step
        rows = [self._data.row(int(index)) for index in self._order.batch(self._step)]
        if not rows:
            return EMPTY
        device, packed = self._run.ranks.device, self._run.resolved.packing
        learned = sum(int(row.learned.sum()) for row in rows)
        return StepBatch(
            micro_batches=tuple(
                MicroBatch.of([self._data.row(int(at)) for at in share], device, packed=packed)
                for share in self._shares(self._run.ranks.rank)
            ),
            tokens=sum(len(row.tokens) for row in rows),
            learned=learned,
            normaliser=learned,
        )

    def rows(self, rank: int, micro_batch: int) -> str:
        """Return the files and lines of a micro-batch of the last batch."""
        sources = self._run.config.recipe.data.train
        return self._data.lines_of(self._shares(rank)[micro_batch], sources)

    def _shares(self, rank: int) -> list[Indices]:
        """Return the dataset indices of each of a rank's micro-batches of the last batch."""
        indices = self._order.batch(self._step)
        return deal(
            indices,
            self._data.offsets[indices + 1] - self._data.offsets[indices],
            rank=rank,
            world=self._run.ranks.world,
            micro_batch_size=self._run.resolved.micro_batch_size,
            passes=self._run.resolved.accumulation_steps,
        )
