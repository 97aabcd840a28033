"""Rollouts over stand-ins: a function draws, another scores."""

from __future__ import annotations

from typing import Any

from finetune_contract.runconfig import RunConfig
from finetune_rewards.scores.samples import Item
from finetune_trainer.course.progress import Reporter
from finetune_trainer.methods.grpo.metrics import buffer_metrics
from finetune_trainer.methods.grpo.prompt_order import PromptPlan
from finetune_trainer.methods.grpo.rollouts import Collector, Rollouts
from finetune_trainer.process.distributed import Ranks
from finetune_trainer.rollout.base import Completion, Request
from support.drawn import FunctionEngine, FunctionPanel, Letters, completion, numbered_prompts
from support.grpo_runs import grpo_config

ROWS = 64
ONE = {"name": "a", "regex": {"pattern": "A"}}
TWO = {"name": "b", "regex": {"pattern": "B"}}


def rolled_config(directory: Any, *, training: Any = None, **grpo: Any) -> RunConfig:
    """Return a RunConfig of one reward unless `grpo` has others."""
    return grpo_config(directory, grpo={"rewards": [ONE], **grpo}, training=training)


def halves(request: Request, sample: int) -> Completion:
    """Draw unequal completions for even rows, equal ones for odd rows."""
    row = request.key[1]
    return completion("A" if row % 2 or sample % 2 else "x")


def is_a(text: str) -> Item:
    """Score 1 for A, else 0."""
    return Item(score=float(text == "A"))


class Rolled:
    """A collector over stand-ins."""

    def __init__(
        self, run: RunConfig, ranks: Ranks, draws: Any = halves, scorers: Any = None
    ) -> None:
        assert run.recipe.grpo is not None
        self.recipe = run.recipe.grpo
        self.prompts = numbered_prompts(ROWS)
        self.plan = PromptPlan.of(run.recipe, self.prompts.data)
        self.engine = FunctionEngine(draws)
        self.panel = FunctionPanel(scorers or {"a": is_a})
        self.reporter = Reporter()
        self.collector = Collector(
            self.recipe,
            self.plan,
            self.prompts,
            Letters(),
            self.engine,
            self.panel,
            ranks,
            self.reporter,
        )

    def collect(self, buffer: int = 0) -> Rollouts:
        """Return a buffer's rollouts after three steps."""
        found = self.collector.collect(buffer, 3, lambda: False)
        assert found is not None
        return found

    def metrics(self, buffer: int = 0) -> dict[str, float]:
        """Return the metrics of a buffer's rollouts."""
        return buffer_metrics(self.collect(buffer), self.recipe.rewards)
