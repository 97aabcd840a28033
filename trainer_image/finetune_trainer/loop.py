"""The optimizer steps of a run: evaluated, checkpointed, and stopped between any two of them.

All ranks are in the same line of it at the same time: what one alone would know (a signal, the
clock) is agreed on first.
"""

from __future__ import annotations

import logging
import time

import numpy as np
import torch

from finetune_contract.artifact import TrainingSummary
from finetune_contract.checkpoint import TrainingState
from finetune_contract.progress import Phase
from finetune_trainer.checkpoints.snapshot import Snapshot
from finetune_trainer.course.telemetry import StepRecord
from finetune_trainer.lead import Lead
from finetune_trainer.prepare import Prepared
from finetune_trainer.process.distributed import Led
from finetune_trainer.process.errors import Failure
from finetune_trainer.process.stopping import interrupted
from finetune_trainer.run import ResolvedRun
from finetune_trainer.step.engine import Engine, NonFinite
from finetune_trainer.step.evaluate import Evaluator
from finetune_trainer.step.feed import EMPTY, Feed
from finetune_trainer.step.optimizer_state import (
    gather_moments,
    gather_weights,
    restore_moments,
    restore_weights,
    whole_shape,
)
from finetune_trainer.step.schedule import learning_rate

log = logging.getLogger(__name__)


class Loop:
    """One run's steps, from its newest checkpoint on."""

    def __init__(
        self, run: ResolvedRun, engine: Engine, data: Prepared, feed: Feed, lead: Led[Lead]
    ) -> None:
        self._recipe = run.config.recipe.training
        self._ranks = run.ranks
        self._reporter = run.reporter
        self._stop = run.stop
        self._engine = engine
        self._data = data
        self._feed = feed
        self._lead = lead
        self._evaluator = Evaluator(run, engine, data.eval)

    def run(self) -> TrainingSummary:
        """Go on to the end and leave the weights to publish in the engine.

        Raises Interrupted, after a checkpoint, when any rank is told to stop, and Superseded once a
        checkpoint has seen that another claimed the output.
        """
        steps, evaluator = self._feed.steps, self._evaluator
        state = self._resume()
        self._reporter.begin(Phase.TRAIN, steps)
        self._reporter.resumed(state.step)
        log.info("starts at step %d of %d", state.step, steps)
        while True:
            if evaluator.due(state, steps):
                state = self._evaluate(state)
            stops, due, lost = self._agreed(state.step)
            ends = state.step == steps or evaluator.gave_up(state)
            if stops or ends or lost:
                self._settle(state)
            elif due:
                self._checkpoint(state)
            if stops:
                raise interrupted(state.step)
            if ends:
                return self._finish(state)
            state = self._step(state)

    def _resume(self) -> TrainingState:
        engine, ranks, snapshot = self._engine, self._ranks, Snapshot.beginning()
        shapes = {name: whole_shape(p) for name, p in engine.parameters.items()}

        def find(lead: Lead) -> TrainingState:
            nonlocal snapshot
            snapshot = lead.resume(lambda found: found.shapes() == shapes)
            return snapshot.state

        state = self._lead.ask(find)
        if state.step:
            restore_weights(engine, snapshot.weights, ranks)
            restore_moments(engine, snapshot.moments, ranks)
            engine.loss_scale.value = state.loss_scale
            engine.loss_scale.clean_steps = state.clean_steps
        self._evaluator.best = snapshot.best
        self._feed.resume(state, snapshot.rollouts)
        return state

    def _stops(self) -> bool:
        return self._ranks.agree(self._stop.came)[0]

    def _agreed(self, step: int) -> tuple[bool, ...]:
        """Return whether to stop, whether a checkpoint is due, and whether the output is lost."""
        lead = self._lead.mine
        due = lead is not None and lead.checkpoints.due(step)
        lost = lead is not None and lead.checkpoints.superseded is not None
        return self._ranks.agree(self._stop.came, due, lost)

    def _evaluate(self, state: TrainingState) -> TrainingState:
        """Return the state with its eval loss; the same where a stop left it undone."""
        evaluated = self._evaluator.evaluate(state, self._stops)
        if evaluated.evaluation is not None and evaluated is not state:
            found = evaluated.evaluation
            self._reporter.evaluated(found.loss)
            if self._lead.mine is not None:
                self._lead.mine.telemetry.evaluated(found.step, found.loss)
        return evaluated

    def _step(self, state: TrainingState) -> TrainingState:
        """Return the state after one more step; the same where a stop left it undone."""
        began = time.monotonic()
        batch = self._feed.batch(state, self._stops)
        if batch is None:
            return state
        if batch is EMPTY:
            self._reporter.passed(state.step + 1)
            return state.model_copy(update={"step": state.step + 1})
        seed_step(self._recipe.seed, state.step, self._ranks.rank)
        rate = learning_rate(self._recipe, state.step, self._feed.steps)
        try:
            outcome = self._engine.step(batch.micro_batches, batch.normaliser, rate, self._stops)
        except NonFinite as failure:
            raise self._located(failure, state.step) from failure
        if outcome is None:
            return state
        record = StepRecord(
            step=state.step + 1,
            loss=outcome.loss,
            grad_norm=outcome.grad_norm,
            learning_rate=rate,
            tokens=batch.tokens,
            supervised_tokens=batch.learned,
            seconds=time.monotonic() - began,
            metrics=self._feed.metrics(outcome),
        )
        self._reporter.trained(record)
        if self._lead.mine is not None:
            self._lead.mine.telemetry.step(record)
        after = state.model_copy(
            update={
                "step": record.step,
                "supervised_tokens": state.supervised_tokens + batch.learned,
                "loss": outcome.loss,
                "loss_scale": self._engine.loss_scale.value,
                "clean_steps": self._engine.loss_scale.clean_steps,
            }
        )
        return self._feed.stepped(after)

    def _located(self, failure: NonFinite, step: int) -> Failure:
        """Return the failure with the step, from 1, and the rows of the micro-batch."""
        assert failure.rank is not None
        rows = self._feed.rows(failure.rank, failure.micro_batch)
        return Failure(
            failure.reason,
            f"the {failure.what} of step {step + 1} is not finite; first in micro-batch "
            f"{failure.micro_batch + 1} of rank {failure.rank}: {rows}",
            step=step + 1,
            rank=failure.rank,
        )

    def _checkpoint(self, state: TrainingState) -> None:
        """Take the state off the device; it is written while training goes on."""
        engine, ranks = self._engine, self._ranks
        weights, moments = gather_weights(engine, ranks), gather_moments(engine, ranks)
        rollouts = self._feed.save()
        if self._lead.mine is not None:
            best = self._evaluator.best
            self._lead.mine.save(Snapshot(state, weights, moments, best, rollouts))

    def _settle(self, state: TrainingState) -> None:
        """Save the state, unless it is saved, before anything else happens."""
        saved = self._lead.ask(Lead.saved)
        if state.step and (saved is None or saved.step != state.step):
            self._checkpoint(state)
            saved = self._lead.ask(Lead.saved)
        if saved is not None:
            self._reporter.checkpointed(saved)

    def _finish(self, state: TrainingState) -> TrainingSummary:
        published, evaluation = state.step, state.evaluation
        if self._evaluator.keeps_best and state.best is not None:
            published, evaluation = state.best.step, state.best
            restore_weights(self._engine, self._evaluator.best, self._ranks)
        return TrainingSummary(
            steps=state.step,
            supervised_tokens=state.supervised_tokens,
            final_loss=state.loss,
            published_step=published,
            eval_loss=evaluation.loss if evaluation and evaluation.step == published else None,
            stopped_early=state.step < self._feed.steps,
            skipped_rows=self._data.skipped,
            ignored_keys=self._data.ignored,
            final_reward=self._feed.reward,
        )


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed dropout by step and rank: a run that goes on at any step draws what it would have."""
    torch.manual_seed(
        int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0])
    )
