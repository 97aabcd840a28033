"""A feed over stand-ins, driven as the loop does."""

from __future__ import annotations

from collections.abc import Container
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from finetune_contract.checkpoint import TrainingState
from finetune_contract.layout import ZeroStage
from finetune_contract.runconfig import RunConfig
from finetune_rewards.scores.samples import Item
from finetune_trainer.course.progress import Reporter
from finetune_trainer.methods.grpo.feed import GrpoFeed
from finetune_trainer.methods.grpo.prompt_order import PromptOrder
from finetune_trainer.methods.grpo.rollouts import Collector
from finetune_trainer.process.distributed import Ranks
from finetune_trainer.step.engine import StepOutcome
from finetune_trainer.step.feed import StepBatch
from support.grpo.configs import grpo_config
from support.grpo.stand_ins import (
    LETTERS,
    FunctionEngine,
    FunctionPanel,
    completion,
    numbered_prompts,
)
from support.trainer.parts import resolved_run

ONE = {"name": "a", "regex": {"pattern": "A"}}
STATS = {"tokens": 8.0, "clipped_low": 2.0, "clipped_high": 0.0, "kl": 4.0}


class Scorer:
    """An engine of one weight; log-probabilities are tokens times it.

    Tells how often it was asked, and for how many micro-batches.
    """

    stage = ZeroStage.DDP
    optimizer = None  # its own copy of the weight is the weight

    def __init__(self) -> None:
        self.asked = self.passes = 0
        self.parameters = {"weight": torch.tensor([-1.0])}

    def gathered(self) -> AbstractContextManager[None]:
        """Have the weight whole, as it is."""
        return nullcontext()

    @property
    def weight(self) -> float:
        """Return the weight."""
        return self.parameters["weight"].item()

    @weight.setter
    def weight(self, value: float) -> None:
        self.parameters["weight"].fill_(value)

    def log_probs(self, batches: Any) -> list[torch.Tensor]:
        """Return one number per token that is learned."""
        self.asked += 1
        self.passes += len(batches)
        return [self.weight * batch.targets.float() for batch in batches]


class Fed:
    """A feed, and where its training stands."""

    def __init__(
        self,
        config: RunConfig,
        ranks: Ranks,
        scorer: Any,
        draws: Any = None,
        left_out: Container[int] = (),
    ) -> None:
        prompts = numbered_prompts(64, left_out)
        self.order = order = PromptOrder.of(config.recipe, prompts.data)
        self.drawer = FunctionEngine(draws or (lambda _, sample: completion("Axx"[sample % 3])))
        self.reporter, self.engine = Reporter(), Scorer()
        run = resolved_run(config, ranks, self.reporter)
        panel: Any = FunctionPanel({"a": scorer})
        collector = Collector(run, order, prompts, LETTERS, self.drawer, panel)
        engine: Any = self.engine
        self.feed = GrpoFeed(run, order, prompts, collector, engine)
        self.state = TrainingState(step=0, supervised_tokens=0, loss=0.0)

    def batch(self) -> StepBatch:
        """Return this rank's next batch."""
        found = self.feed.batch(self.state, lambda: False)
        assert found is not None
        return found

    def step(self) -> dict[str, float]:
        """Make a step; return what is told of it."""
        self.batch()
        told = self.feed.metrics(StepOutcome(0.0, 0.0, STATS))
        after = self.state.model_copy(update={"step": self.state.step + 1})
        self.state = self.feed.stepped(after)
        return told


def fed_config(directory: Path, **grpo: Any) -> RunConfig:
    """Return a run of one reward, with micro-batches of 4."""
    return grpo_config(directory, grpo={"rewards": [ONE], **grpo}, microBatchSize=4)


def is_a(text: str) -> Item:
    """Score 1 for A, else 0."""
    return Item(score=float(text == "A"))
