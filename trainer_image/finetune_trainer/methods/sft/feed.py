"""Batches of encoded rows, all known from the start: a function of the recipe and the step."""

from __future__ import annotations

from collections.abc import Callable

import torch

from finetune_contract.checkpoint import TrainingState
from finetune_contract.runconfig import RunConfig
from finetune_trainer.batch.batches import BatchPlan, deal
from finetune_trainer.batch.micro_batch import MicroBatch
from finetune_trainer.batch.order import Indices
from finetune_trainer.data.dataset import Dataset
from finetune_trainer.process.distributed import Ranks
from finetune_trainer.step.engine import StepOutcome
from finetune_trainer.step.feed import StepBatch
from finetune_trainer.step.optimizer_state import Tensors


class SupervisedFeed:
    """Feeds rows in the order of a BatchPlan; needs no state of its own."""

    reward: float | None = None

    def __init__(self, config: RunConfig, data: Dataset, ranks: Ranks) -> None:
        self._config = config
        self._data = data
        self._ranks = ranks
        self._plan = BatchPlan.of(config.recipe.training, data)
        self._step = 0

    @property
    def steps(self) -> int:
        """Return the optimizer steps of the whole run."""
        return self._plan.steps

    def batch(self, state: TrainingState, stops: Callable[[], bool]) -> StepBatch:
        """Return this rank's share of the step after `state`."""
        self._step = state.step
        ranks = self._ranks
        return step_batch(
            self._plan, state.step, self._data, self._config, ranks.rank, ranks.device
        )

    def rows(self, rank: int, micro_batch: int) -> str:
        """Return the files and lines of a micro-batch of the last batch."""
        shares = step_shares(self._plan, self._step, self._data, self._config, rank)
        return self._data.lines_of(shares[micro_batch], self._config.recipe.data.train)

    def stepped(self, state: TrainingState) -> TrainingState:
        """Return the state: there is nothing to count."""
        return state

    def metrics(self, outcome: StepOutcome) -> dict[str, float]:
        """Return nothing: loss and gradient norm say it."""
        return {}

    def save(self) -> Tensors:
        """Return nothing: the step's number says it all."""
        return {}

    def resume(self, state: TrainingState, saved: Tensors) -> None:
        """Do nothing: the step's number says it all."""


def step_batch(
    plan: BatchPlan,
    step: int,
    data: Dataset,
    config: RunConfig,
    rank: int,
    device: torch.device,
) -> StepBatch:
    """Return a rank's share of a step's batch. Every rank holds all rows, so it can count alone."""
    rows = [data.row(int(index)) for index in plan.batch(step)]
    packed = config.layout.packing
    learned = sum(int(row.learned.sum()) for row in rows)
    return StepBatch(
        micro_batches=tuple(
            MicroBatch.of([data.row(int(index)) for index in share], device, packed=packed)
            if len(share)
            else MicroBatch.idle(device, packed=packed)
            for share in step_shares(plan, step, data, config, rank)
        ),
        tokens=sum(len(row.tokens) for row in rows),
        learned=learned,
        normaliser=learned,
    )


def step_shares(
    plan: BatchPlan, step: int, data: Dataset, config: RunConfig, rank: int
) -> list[Indices]:
    """Return the dataset indices of each of a rank's micro-batches."""
    indices = plan.batch(step)
    return deal(
        indices,
        data.offsets[indices + 1] - data.offsets[indices],
        rank=rank,
        world=config.layout.world_size,
        micro_batch_size=config.micro_batch_size,
        passes=config.accumulation_steps,
    )
