"""Why a step has nothing to learn from, and what to do about it, in words without row data."""

from __future__ import annotations

import numpy as np

from finetune_contract.grpo import GrpoRecipe
from finetune_contract.rewards import Reward
from finetune_rewards.scores.totals import missed_gates
from finetune_trainer.methods.grpo.rewards.scores import Bools, Scores
from finetune_trainer.methods.grpo.rollouts import Rollouts


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
    for index, reward in gates:
        if np.isnan(rollouts.scores.values[:, index]).all():
            return _silent(reward, index, rollouts.scores)
    if np.isnan(rollouts.found.totals).all():
        return "; ".join(_silent(reward, index, rollouts.scores) for index, reward in counted)
    missed, _ = missed_gates(rollouts.scores.values, recipe.rewards)
    told = [_below(reward, index, rollouts.scores) for index, reward in gates]
    told += [_alike(reward, index, rollouts.scores, ~missed) for index, reward in counted]
    lower = "lower the gate, " if missed.any() else ""
    return (
        f"{'; '.join(filter(None, told))}: {lower}take prompts that the model sometimes gets "
        "right, a reward with more steps between wrong and right, or raise rollout.temperature or "
        "groupSize"
    )


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


def _below(reward: Reward, index: int, scores: Scores) -> str:
    """Tell how many completions miss a reward's gate, "" if none."""
    assert reward.gate is not None, "asked of gates"
    missed = scores.values[:, index] < reward.gate
    if not missed.any():
        return ""
    those = "every" if missed.all() else f"{int(missed.sum())} of {len(missed)}"
    noun = "completion" if missed.all() else "completions"
    return f"reward {reward.name} scored {those} {noun} below its gate {reward.gate:g}"


def _alike(reward: Reward, index: int, scores: Scores, passes: Bools) -> str:
    """Tell what a reward gave to the completions that no gate zeroes, "" if there are none."""
    values = scores.values[:, index]
    if np.isnan(values).all():
        return _silent(reward, index, scores)
    there = np.unique(values[passes & ~np.isnan(values)])
    if not len(there):
        return ""
    other = "" if passes.all() else "other "
    if len(there) > 1:
        return f"reward {reward.name} gave the same to all {other}completions of each prompt"
    return f"reward {reward.name} gave {there[0]:g} to every {other}completion"
