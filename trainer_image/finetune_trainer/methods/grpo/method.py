"""GRPO before a run: prompts for rows, a reward runner beside the ranks, curves of rewards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from finetune_contract.recipe import DataFormat, Recipe
from finetune_contract.rewards import Reward
from finetune_contract.runconfig import RunConfig
from finetune_trainer.methods.base import Learning, Method
from finetune_trainer.methods.grpo.recipe import grpo_of

if TYPE_CHECKING:
    from finetune_trainer.data.check import Reader
    from finetune_trainer.data.encoding import Form
    from finetune_trainer.run import Run


class Grpo(Method):
    """Learns from scores of completions that the model draws."""

    def companion(self, config: RunConfig, node: int) -> AbstractContextManager[None]:
        """Return what runs the node's isolated rewards."""
        from finetune_trainer.methods.grpo.rewards.runner import launched_runner

        return launched_runner(config, node)

    def reader(self, form: DataFormat, columns: Mapping[str, str] | None = None) -> Reader:
        """Return what reads prompts; which columns rewards read stands in a job."""
        from finetune_trainer.methods.grpo.prompts.rows import prompt_reader

        return prompt_reader(form, {}, columns)

    def plain_form(self, sequence_length: int, answer: int, rewards: Sequence[Reward] = ()) -> Form:
        """Return how prompts for some rewards are read; an answer's tokens are left room for."""
        from finetune_trainer.methods.grpo.prompts.dataset import prompt_form

        return prompt_form(sequence_length - answer, rewards)

    def form(self, recipe: Recipe) -> Form:
        """Return how prompts for the rewards of a job are read."""
        grpo = grpo_of(recipe)
        length, answer = recipe.training.sequence_length, grpo.sampling.max_tokens
        return self.mapped(self.plain_form(length, answer, grpo.rewards), recipe.data.mapped)

    def curves(self, recipe: Recipe) -> dict[str, str]:
        """Return the metrics of each reward, and of what completions are like."""
        rewards = grpo_of(recipe).rewards
        return {
            **{f"reward {reward.name}": f"reward/{reward.name}/mean" for reward in rewards},
            "tokens of a completion": "rollout/tokens_mean",
            "share of completions cut short": "rollout/truncated_share",
            "share of groups without spread": "rollout/zero_variance_share",
        }

    def opened(self, run: Run) -> AbstractContextManager[Learning]:
        """Return the method with its rewards open."""
        from finetune_trainer.methods.grpo.learning import opened

        return opened(run)


METHOD = Grpo()
