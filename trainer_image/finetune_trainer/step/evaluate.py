"""The eval loss: the mean over all learned tokens of the eval set, the same under every layout."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator

import numpy as np

from finetune_contract.checkpoint import Evaluation, TrainingState
from finetune_contract.progress import Phase
from finetune_contract.reasons import Reason
from finetune_contract.recipe import Publish
from finetune_trainer.batch.batches import deal
from finetune_trainer.batch.micro_batch import MicroBatch
from finetune_trainer.data.dataset import Dataset
from finetune_trainer.process.errors import Failure
from finetune_trainer.run import ResolvedRun
from finetune_trainer.step.engine import Engine
from finetune_trainer.step.optimizer_state import Tensors, gather_weights

log = logging.getLogger(__name__)


class Evaluator:
    """Evaluates when the recipe says so. `best` are the best adapter's weights, on rank 0."""

    def __init__(self, run: ResolvedRun, engine: Engine, data: Dataset | None) -> None:
        self.best: Tensors = {}
        self._resolved = run.resolved
        self._recipe = run.config.recipe.eval
        self._engine = engine
        self._data = data
        self._ranks = run.ranks
        self._reporter = run.reporter

    @property
    def keeps_best(self) -> bool:
        """Tell whether the best adapter is published, not the last."""
        return self._recipe.publish is Publish.BEST

    def due(self, state: TrainingState, steps: int) -> bool:
        """Tell whether the state, of a run of `steps` steps, is to be evaluated."""
        if self._data is None or (state.evaluation and state.evaluation.step == state.step):
            return False
        every = self._recipe.every_steps
        return state.step == steps or bool(every and state.step and state.step % every == 0)

    def gave_up(self, state: TrainingState) -> bool:
        """Tell whether `patience` evaluations in a row have brought no lower loss."""
        patience = self._recipe.patience
        return patience is not None and state.evaluations_without_gain >= patience

    def evaluate(self, state: TrainingState, stops: Callable[[], bool]) -> TrainingState:
        """Return the state with the eval loss in it; the same where a stop left it undone.

        Raises NonFiniteLoss.
        """
        loss = self._loss(stops)
        if loss is None:
            return state
        if not math.isfinite(loss):
            raise Failure(
                Reason.NON_FINITE_LOSS,
                f"the eval loss after step {state.step} is not finite",
                step=state.step,
                rank=0,
            )
        found = Evaluation(step=state.step, loss=loss)
        gained = state.best is None or loss < state.best.loss
        if gained and self.keeps_best:
            self.best = gather_weights(self._engine, self._ranks)
        log.info("step %d eval loss %.4f%s", state.step, loss, ", the lowest" if gained else "")
        return state.model_copy(
            update={
                "evaluation": found,
                "best": found if gained else state.best,
                "evaluations_without_gain": 0 if gained else state.evaluations_without_gain + 1,
            }
        )

    def _loss(self, stops: Callable[[], bool]) -> float | None:
        assert self._data is not None
        summed, tokens = 0.0, int(self._data.learned.sum())
        with self._reporter.aside(Phase.EVALUATE, len(self._data)):
            for rows, batch in self._micro_batches(self._data):
                if stops():
                    return None
                summed += self._engine.loss_sum([batch])
                self._reporter.advance(rows)
        return self._ranks.sum(summed) / tokens

    def _micro_batches(self, data: Dataset) -> Iterator[tuple[int, MicroBatch]]:
        """Yield this rank's micro-batches, as many as every rank's, and the rows of all ranks."""
        packed, device = self._resolved.packing, self._ranks.device
        size, world = self._resolved.micro_batch_size, self._ranks.world
        passes = math.ceil(len(data) / (size * world))
        shares = deal(
            np.arange(len(data)),
            np.diff(data.offsets),
            rank=self._ranks.rank,
            world=world,
            micro_batch_size=size,
            passes=passes,
        )
        for index, share in enumerate(shares):
            rows = [data.row(int(row)) for row in share]
            batch = MicroBatch.of(rows, device, packed=packed)
            yield min(size * world, len(data) - index * size * world), batch
