"""GRPO's batches: made of completions that the model draws as it stands."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from finetune_contract.checkpoint import TrainingState
from finetune_contract.reasons import Reason
from finetune_trainer.batch.micro_batch import MicroBatch
from finetune_trainer.batch.order import Indices
from finetune_trainer.methods.grpo.buffer import (
    Buffer,
    deal_groups,
    micro_batch,
    splits_groups,
    used_passes,
)
from finetune_trainer.methods.grpo.idle import cause
from finetune_trainer.methods.grpo.losses import normaliser
from finetune_trainer.methods.grpo.metrics import (
    TOTAL,
    buffer_metrics,
    reward_progress,
    step_metrics,
)
from finetune_trainer.methods.grpo.prompt_order import PromptOrder
from finetune_trainer.methods.grpo.prompts.dataset import Prompts
from finetune_trainer.methods.grpo.recipe import grpo_of
from finetune_trainer.methods.grpo.rollouts import Collector, Rollouts
from finetune_trainer.process.errors import Failure
from finetune_trainer.run import ResolvedRun
from finetune_trainer.step.engine import Engine, StepOutcome
from finetune_trainer.step.feed import EMPTY, Feed, StepBatch
from finetune_trainer.step.optimizer_state import Tensors, gather_weights, restore_weights

log = logging.getLogger(__name__)
Floats = npt.NDArray[np.float32]
ERRORS, REWARD = "run.errors", "run.reward"


class GrpoFeed(Feed):
    """Makes a buffer of completions, and `iterations` batches of it.

    `reward` is the mean total of the last buffer. Make it before a checkpoint is restored: the
    reference is the model as training began.
    """

    def __init__(
        self,
        run: ResolvedRun,
        order: PromptOrder,
        prompts: Prompts,
        collector: Collector,
        engine: Engine,
    ) -> None:
        self._run = run
        self._recipe = grpo_of(run.config.recipe)
        self._order = order
        self._prompts = prompts
        self._collector = collector
        self._engine = engine
        self._ranks = run.ranks
        self._initial = gather_weights(engine, run.ranks) if self._recipe.beta else {}
        self._errors = np.zeros(len(self._recipe.rewards), dtype=np.int64)  # of the whole run
        self._buffer: Buffer | None = None
        self._shares: list[list[Indices]] = []
        self._told_split = False
        self._fresh = True  # the last batch is the first of its buffer
        self._began = 0.0

    @property
    def steps(self) -> int:
        """Return the optimizer steps of the whole run."""
        return self._order.steps

    def batch(self, state: TrainingState, stops: Callable[[], bool]) -> StepBatch | None:
        """Return this rank's share of the step after `state`; draw a buffer where none is left."""
        self._fresh = state.step % self._recipe.iterations == 0
        if self._buffer is None:
            if not len(self._order.rows(state.step // self._recipe.iterations)):
                return EMPTY
            made = self._make(state, stops)
            if made is None:
                return None
            shares = self._dealt(made)
            self._take(self._with_log_probs(made, shares), shares)
        buffer = self._buffer
        assert buffer is not None
        prompts = sum(len(self._prompts.tokens(int(row))) for row in buffer.rows)
        tokens = int(buffer.lengths[buffer.kept].sum())
        self._began = time.monotonic()
        return StepBatch(
            micro_batches=tuple(self._micro_batches(buffer, self._shares)),
            tokens=buffer.group_size * prompts + len(buffer.tokens),
            learned=tokens,
            normaliser=normaliser(int(buffer.kept.sum()), tokens, self._recipe),
        )

    def rows(self, rank: int, micro_batch: int) -> str:
        """Return the files and lines of the prompts of a micro-batch of the last batch."""
        assert self._buffer is not None
        completions = self._shares[micro_batch][rank]
        chosen = np.unique(self._buffer.rows[completions // self._buffer.group_size])
        return self._prompts.data.lines_of(chosen, self._run.config.recipe.data.train)

    def stepped(self, state: TrainingState) -> TrainingState:
        """Return the state with steps in a row counted that had nothing to learn from.

        Raises Failure(NothingToLearn) where they are too many.
        """
        buffer, limit = self._buffer, self._recipe.nothing_to_learn_steps
        assert buffer is not None
        if state.step % self._recipe.iterations == 0:
            self._buffer = None
        idle = state.idle_steps + 1 if buffer.nothing else 0
        if idle >= limit:
            raise Failure(
                Reason.NOTHING_TO_LEARN,
                f"{idle} steps in a row had nothing to learn from; in the last, {buffer.nothing}",
                step=state.step,
                rank=0,
            )
        return state.model_copy(update={"idle_steps": idle})

    def metrics(self, outcome: StepOutcome) -> dict[str, float]:
        """Return what is to be told of the buffer and of the step; time once per buffer."""
        assert self._buffer is not None
        told = self._buffer.metrics
        if not self._fresh:
            told = {name: value for name, value in told.items() if not name.endswith("seconds")}
        return {
            **told,
            **step_metrics(outcome.stats),
            "policy/seconds": time.monotonic() - self._began,
        }

    def save(self) -> Tensors:
        """Return on rank 0 the buffer, if steps on it are to come, and what the run has counted."""
        if not self._ranks.is_lead:
            return {}
        counts: Tensors = {ERRORS: torch.from_numpy(self._errors.copy())}
        if self.reward is not None:
            counts[REWARD] = torch.tensor(self.reward, dtype=torch.float64)
        return counts | (self._buffer.tensors() if self._buffer else {})

    def resume(self, state: TrainingState, saved: Tensors) -> None:
        """Go on after `state` with what rank 0 has of `save`."""
        saved = self._ranks.lead(lambda: saved)
        if ERRORS in saved:
            self._errors = saved[ERRORS].numpy().copy()
        if REWARD in saved:
            self.reward = float(saved[REWARD])
        if "index" in saved:
            buffer = Buffer.of(saved)
            self._take(buffer, self._dealt(buffer))

    def _take(self, buffer: Buffer, shares: list[list[Indices]]) -> None:
        self._buffer, self._shares = buffer, shares
        self._tell_split(buffer.group_size)

    def _dealt(self, buffer: Buffer) -> list[list[Indices]]:
        resolved = self._run.resolved
        return deal_groups(
            buffer,
            size=resolved.micro_batch_size,
            world=self._ranks.world,
            passes=resolved.accumulation_steps,
        )

    def _tell_split(self, group: int) -> None:
        """Say once that whole groups leave micro-batches too empty to compute prompts once."""
        size = self._run.resolved.micro_batch_size
        fits = self._run.resolved.packing and group <= size
        if self._told_split or not fits or not splits_groups(self._shares, group):
            return
        self._told_split = True
        log.info(
            "prompts of groups that lie in two micro-batches are computed twice: micro-batches of "
            "%d do not hold whole groups of %d; a multiple of groupSize as microBatchSize does",
            size,
            group,
        )

    def _make(self, state: TrainingState, stops: Callable[[], bool]) -> Buffer | None:
        index = state.step // self._recipe.iterations
        rollouts = self._collector.collect(index, state.step, stops)
        if rollouts is None:
            return None
        found, recipe = rollouts.found, self._recipe
        idle = rollouts.truncated.all() or not found.spread.any()
        metrics = buffer_metrics(rollouts, recipe.rewards)
        self._told(rollouts, metrics)
        return Buffer(
            index=index,
            rows=rollouts.rows,
            tokens=np.concatenate([one.tokens for one in rollouts.completions]),
            lengths=rollouts.lengths,
            advantages=found.values,
            kept=found.kept,
            learned=found.kept & ((found.values != 0) | (recipe.beta > 0)),
            nothing=cause(rollouts, recipe) if idle else "",
            metrics=metrics,
        )

    def _told(self, rollouts: Rollouts, metrics: dict[str, float]) -> None:
        self.reward = None if np.isnan(metrics[TOTAL]) else metrics[TOTAL]
        self._errors += rollouts.scores.failures
        rewards = reward_progress(metrics, self._recipe.rewards, self._errors.tolist())
        self._run.reporter.rewarded(self.reward, rewards)

    def _with_log_probs(self, buffer: Buffer, shares: Sequence[Sequence[Indices]]) -> Buffer:
        """Return the buffer with the log-probabilities that its steps compare with."""
        shares = shares[: used_passes(shares)]
        if self._recipe.iterations > 1:
            buffer = replace(buffer, behaviour=self._log_probs(buffer, shares))
        if self._recipe.beta:
            # The adapter's first weights, not the base without it: one may have been gone on from.
            now = gather_weights(self._engine, self._ranks)
            restore_weights(self._engine, self._initial, self._ranks)
            buffer = replace(buffer, reference=self._log_probs(buffer, shares))
            restore_weights(self._engine, now, self._ranks)
        return buffer

    def _log_probs(self, buffer: Buffer, shares: Sequence[Sequence[Indices]]) -> Floats:
        """Return log-probabilities [T] of the buffer's tokens, 0 where nothing is learned."""
        ranks = self._ranks
        scored = self._engine.log_probs(self._micro_batches(buffer, shares))
        mine = [
            (by_rank[ranks.rank], log_probs.cpu().numpy())
            for by_rank, log_probs in zip(shares, scored, strict=True)
            if len(by_rank[ranks.rank])
        ]
        found = np.zeros(len(buffer.tokens), dtype=np.float32)
        for theirs in ranks.everywhere(lambda: mine):
            for completions, log_probs in theirs:
                spans = [buffer.span(int(completion)) for completion in completions]
                found[np.concatenate([np.arange(s.start, s.stop) for s in spans])] = log_probs
        return found

    def _micro_batches(
        self, buffer: Buffer, shares: Sequence[Sequence[Indices]]
    ) -> list[MicroBatch]:
        ranks, packed = self._ranks, self._run.resolved.packing
        return [
            micro_batch(buffer, by_rank[ranks.rank], self._prompts, ranks.device, packed=packed)
            for by_rank in shares
        ]
