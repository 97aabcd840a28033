"""GRPO at work: rewards open, completions drawn from the model as it stands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from finetune_contract.artifact import RewardIdentity
from finetune_contract.layout import Rollout, RolloutEngine
from finetune_rewards.panel import Panel
from finetune_trainer.data.dataset import Dataset
from finetune_trainer.fit.fitting import Wish
from finetune_trainer.methods.base import Learning
from finetune_trainer.methods.grpo.feed import GrpoFeed
from finetune_trainer.methods.grpo.losses import GrpoObjective
from finetune_trainer.methods.grpo.prompt_order import PromptOrder
from finetune_trainer.methods.grpo.prompts.dataset import open_prompts
from finetune_trainer.methods.grpo.recipe import grpo_of
from finetune_trainer.methods.grpo.rewards.opened import identities, opened_panel
from finetune_trainer.methods.grpo.rewards.reward_model import reward_models
from finetune_trainer.methods.grpo.rewards.texts import Texts
from finetune_trainer.methods.grpo.rollouts import Collector
from finetune_trainer.model.generation import stop_tokens
from finetune_trainer.model.tokenizer import load_tokenizer
from finetune_trainer.rollout import rollout_engine
from finetune_trainer.run import ResolvedRun, Run
from finetune_trainer.step.engine import Engine
from finetune_trainer.step.feed import Feed


@contextmanager
def opened(run: Run) -> Iterator[Learning]:
    """Load reward models and open the other rewards; all ranks must call it."""
    config, ranks = run.config, run.ranks
    judges = reward_models(config, ranks)
    with opened_panel(config, judges, ranks) as panel:
        yield GrpoLearning(run, panel, identities(panel, ranks), judges.bytes)


class GrpoLearning(Learning):
    """Steps over completions that a panel scores; its models hold so many bytes of the device."""

    def __init__(
        self, run: Run, panel: Panel, identities: tuple[RewardIdentity, ...], held: int
    ) -> None:
        self.objective = GrpoObjective(grpo_of(run.config.recipe))
        self.identities = identities
        self._run = run
        self._panel = panel
        self._held = held

    def wish(self, wish: Wish) -> Wish:
        """Return the wish of a job that draws completions and holds reward models."""
        config = self._run.config
        grpo, rollout = grpo_of(config.recipe), config.layout.rollout or Rollout()
        return replace(
            wish,
            group_size=grpo.group_size,
            completion_tokens=grpo.sampling.max_tokens,
            generates=rollout.engine is RolloutEngine.BUILTIN,
            reward_models=self._held,
        )

    def feed(
        self, run: ResolvedRun, engine: Engine, model: Any, data: Dataset, directory: Path
    ) -> Feed:
        """Return batches of completions of the prompts."""
        recipe, prompts = run.config.recipe, open_prompts(data)
        tokenizer = load_tokenizer(directory)
        drawer = rollout_engine(run, grpo_of(recipe).sampling, engine, model, tokenizer)
        order = PromptOrder.of(recipe, data)
        texts = Texts(tokenizer, stop_tokens(model, tokenizer))
        collector = Collector(run, order, prompts, texts, drawer, self._panel)
        return GrpoFeed(run, order, prompts, collector, engine)
