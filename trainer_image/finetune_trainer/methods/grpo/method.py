"""GRPO before a run: prompts for rows, a reward runner beside the ranks, curves of rewards."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from finetune_contract.recipe import Recipe
from finetune_contract.runconfig import RunConfig
from finetune_trainer.methods.base import Learning, Method
from finetune_trainer.methods.grpo.recipe import grpo_of
from finetune_trainer.methods.grpo.rewards.runner import launched_runner

if TYPE_CHECKING:
    from finetune_trainer.data.encoding import Form
    from finetune_trainer.run import Run


class Grpo(Method):
    """Learns from scores of completions that the model draws."""

    def companion(self, config: RunConfig, node: int) -> AbstractContextManager[None]:
        """Return what runs the node's isolated rewards."""
        return launched_runner(config, node)

    def form(self, recipe: Recipe) -> Form:
        """Return how prompts are read; an answer's tokens are left room for."""
        from finetune_trainer.methods.grpo.prompts.dataset import prompt_form

        grpo = grpo_of(recipe)
        longest = recipe.training.sequence_length - grpo.sampling.max_tokens
        return prompt_form(longest, grpo.rewards)

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
