"""Batches of encoded rows, all known from the start: a function of the recipe and the step."""

from __future__ import annotations

from collections.abc import Callable

from finetune_contract.checkpoint import TrainingState
from finetune_trainer.batch.batches import BatchOrder, deal
from finetune_trainer.batch.micro_batch import MicroBatch
from finetune_trainer.batch.order import Indices
from finetune_trainer.data.dataset import Dataset
from finetune_trainer.run import ResolvedRun
from finetune_trainer.step.feed import Feed, StepBatch


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
        """Return this rank's share of the step after `state`."""
        self._step = state.step
        return step_batch(self._run, self._order, state.step, self._data)

    def rows(self, rank: int, micro_batch: int) -> str:
        """Return the files and lines of a micro-batch of the last batch."""
        shares = step_shares(self._run, self._order, self._step, self._data, rank)
        return self._data.lines_of(shares[micro_batch], self._run.config.recipe.data.train)


def step_batch(run: ResolvedRun, order: BatchOrder, step: int, data: Dataset) -> StepBatch:
    """Return this rank's share of a step's batch. It holds all rows, so it can count alone."""
    rows = [data.row(int(index)) for index in order.batch(step)]
    device, packed = run.ranks.device, run.plan.packing
    learned = sum(int(row.learned.sum()) for row in rows)
    return StepBatch(
        micro_batches=tuple(
            MicroBatch.of([data.row(int(index)) for index in share], device, packed=packed)
            for share in step_shares(run, order, step, data, run.ranks.rank)
        ),
        tokens=sum(len(row.tokens) for row in rows),
        learned=learned,
        normaliser=learned,
    )


def step_shares(
    run: ResolvedRun, order: BatchOrder, step: int, data: Dataset, rank: int
) -> list[Indices]:
    """Return the dataset indices of each of a rank's micro-batches."""
    indices = order.batch(step)
    return deal(
        indices,
        data.offsets[indices + 1] - data.offsets[indices],
        rank=rank,
        world=run.ranks.world,
        micro_batch_size=run.plan.micro_batch_size,
        passes=run.plan.accumulation_steps,
    )
