"""Why a step has nothing to learn from, and what to do about it, in words without row data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from finetune_contract.grpo import GrpoRecipe
from finetune_contract.rewards import Reward
from finetune_trainer.grpo.rollouts import Rollouts
from finetune_trainer.grpo.scores import Scores


def cause(rollouts: Rollouts, recipe: GrpoRecipe) -> str:
    """Return what left no group to learn from, and the remedy."""
    tokens = recipe.sampling.max_tokens
    if rollouts.truncated.all():
        return (
            f"every completion was cut at rollout.maxTokens ({tokens}) before its end: raise it, "
            "or fine-tune the model to answer shortly first"
        )
    counted = [(i, reward) for i, reward in enumerate(recipe.rewards) if reward.weight > 0]
    gates = [(i, reward) for i, reward in enumerate(recipe.rewards) if reward.gate is not None]
    for index, reward in (*counted, *gates):
        if np.isnan(rollouts.scores.values[:, index]).all() and (
            reward.gate is not None or len(counted) == 1
        ):
            return _silent(reward, index, rollouts.scores)
    if np.isnan(rollouts.found.totals).all():
        return "; ".join(_silent(reward, index, rollouts.scores) for index, reward in counted)
    return _alike(counted, rollouts.scores)


def _silent(reward: Reward, index: int, scores: Scores) -> str:
    failed = scores.failed[:, index]
    if failed.all():
        return (
            f"reward {reward.name} failed on every completion, such as with "
            f"'{scores.errors[reward.name]}': mend it; `finetune reward test` shows it on a laptop"
        )
    if not failed.any():
        return (
            f"reward {reward.name} gave no score to any completion: let it return a finite number "
            "where it can judge"
        )
    return (
        f"reward {reward.name} failed on {int(failed.sum())} of {len(failed)} completions, such as "
        f"with '{scores.errors[reward.name]}', and gave no score to the others: mend it"
    )


def _alike(counted: Sequence[tuple[int, Reward]], scores: Scores) -> str:
    told = []
    for index, reward in counted:
        values = scores.values[:, index]
        there = np.unique(values[~np.isnan(values)])
        if len(there) == 1:
            told.append(f"reward {reward.name} gave {there[0]:g} to every completion")
        elif len(there):
            told.append(f"reward {reward.name} gave the same to all completions of each prompt")
        else:
            told.append(_silent(reward, index, scores))
    return (
        f"{'; '.join(told)}: take prompts that the model sometimes gets right, a reward with more "
        "steps between wrong and right, or raise rollout.temperature or groupSize"
    )
