"""spec.method -> the contract's GRPO, and which of its rewards are scored apart."""

from __future__ import annotations

from finetune_api import rewards as api
from finetune_api.grpo import Grpo
from finetune_api.quantity import amount
from finetune_api.spec import FineTuneJobSpec
from finetune_contract.grpo import GrpoRecipe, Sampling
from finetune_contract.layout import Rollout, RolloutEngine
from finetune_contract.model import filled
from finetune_contract.rewards import PythonReward, Reward
from finetune_operator.job.errors import checked


def grpo_recipe(grpo: Grpo) -> GrpoRecipe:
    """Return what of method.grpo decides the adapter."""
    return filled(
        GrpoRecipe,
        grpo,
        sampling=filled(Sampling, grpo.rollout),
        rewards=tuple(map(reward_recipe, grpo.rewards)),
    )


@checked()
def reward_recipe(reward: api.Reward) -> Reward:
    """Return one reward. Raises Stalled(InvalidSpec) if the trainer could not take it."""
    return filled(Reward, reward, python=reward.python and _python(reward.python))


def _python(source: api.PythonReward) -> PythonReward:
    return filled(
        PythonReward,
        source,
        config_map=source.config_map.name,
        key=source.config_map.key,
        memory_bytes=amount(source.memory),
    )


def rollout(spec: FineTuneJobSpec) -> Rollout | None:
    """Return where completions are drawn, if that is not the trainer itself."""
    grpo = spec.method.grpo
    if grpo is None or grpo.rollout.engine is RolloutEngine.BUILTIN:
        return None
    return filled(Rollout, grpo.rollout)


def isolated_rewards(spec: FineTuneJobSpec) -> tuple[api.Reward, ...]:
    """Return the rewards that the isolated runner scores."""
    rewards = spec.method.grpo.rewards if spec.method.grpo else ()
    return tuple(reward for reward in rewards if reward.http is None and reward.model is None)


def python_rewards(spec: FineTuneJobSpec) -> dict[str, api.PythonReward]:
    """Return the rewards that are code of the user's, by name."""
    return {r.name: r.python for r in isolated_rewards(spec) if r.python is not None}
