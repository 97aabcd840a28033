"""Scores of groups of completions -> advantages.

The baseline is always the mean of the completion's group. What a completion lacks is left out, of
the mean and of the spread as well: a score is never made up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from finetune_contract.grpo import Aggregate, GrpoRecipe, ScaleRewards
from finetune_rewards.totals import totals

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

EPSILON = 1e-4  # added to a standard deviation, as in TRL


@dataclass(frozen=True)
class Advantages:
    """Of N completions in groups that stand one after the other.

    `kept` tells which take part in the loss; `spread` which of the groups have anything to learn
    from.
    """

    values: Floats  # [N], 0 where not kept
    totals: Floats  # [N], NaN where no reward scored
    kept: Bools  # [N]
    spread: Bools  # [groups]


def advantages(
    scores: Floats, lengths: npt.NDArray[np.int64], truncated: Bools, recipe: GrpoRecipe
) -> Advantages:
    """Return the advantages of completions with scores [N, rewards], NaN for none.

    `lengths` [N] are in tokens; `truncated` [N] tells which were cut at max_tokens.
    """
    punishment = soft_punishment(lengths, recipe)
    total = totals(scores, recipe.rewards) + punishment
    there = ~np.isnan(total)
    if recipe.aggregate is Aggregate.GDPO:
        values, spread = _gdpo(scores, punishment, total, recipe)
    else:
        groups = total.reshape(-1, recipe.group_size)
        centred, deviation = _centred(groups)
        spread = (centred != 0).any(1)
        values = _scaled(centred, deviation, total, recipe.scaling).reshape(-1)
    kept = there & ~(truncated & recipe.mask_truncated)
    learns = (kept & (values != 0)).reshape(-1, recipe.group_size).any(1)
    return Advantages(np.where(kept, values, 0.0), total, kept, spread & learns)


def soft_punishment(lengths: npt.NDArray[np.int64], recipe: GrpoRecipe) -> Floats:
    """Return [N] from 0 to -1, over the last tokens before the limit (2503.14476, equation 13)."""
    tokens = recipe.soft_punish_tokens
    if tokens == 0:
        return np.zeros(len(lengths))
    over = lengths - (recipe.sampling.max_tokens - tokens)
    return -np.clip(over / tokens, 0.0, 1.0)


def _centred(groups: Floats) -> tuple[Floats, Floats]:
    """Return values [groups, size] less their group's mean, and its deviation [groups, 1].

    NaN stands for none, in and out. Equal values are centred to exactly 0.
    """
    there = ~np.isnan(groups)
    count = there.sum(1, keepdims=True)
    filled = np.where(there, groups, 0.0)
    mean = filled.sum(1, keepdims=True) / np.maximum(count, 1)
    least = np.where(there, groups, np.inf).min(1, keepdims=True)
    most = np.where(there, groups, -np.inf).max(1, keepdims=True)
    differ = (most > least) & (count > 1)
    centred = np.where(there, np.where(differ, groups - mean, 0.0), np.nan)
    squares = np.where(there, centred, 0.0) ** 2
    deviation = np.sqrt(squares.sum(1, keepdims=True) / np.maximum(count - 1, 1))
    return centred, deviation


def _scaled(centred: Floats, deviation: Floats, total: Floats, scaling: ScaleRewards) -> Floats:
    if scaling is ScaleRewards.NONE:
        divided = centred
    elif scaling is ScaleRewards.GROUP:
        divided = centred / (deviation + EPSILON)
    else:
        [of_batch] = _centred(total[None])[1]
        divided = centred / (of_batch + EPSILON)
    return np.nan_to_num(divided, nan=0.0)


def _gdpo(
    scores: Floats, punishment: Floats, total: Floats, recipe: GrpoRecipe
) -> tuple[Floats, Bools]:
    """Return values [N] and spreads [groups] by arXiv 2601.05242.

    A completion whose gate is missed scores 0 in every reward; the punishment is one more reward,
    of weight 1.
    """
    size = recipe.group_size
    weights = np.array([reward.weight for reward in recipe.rewards])
    missed = np.zeros(len(scores), dtype=np.bool_)
    for index, reward in enumerate(recipe.rewards):
        if reward.gate is not None:
            missed |= scores[:, index] < reward.gate
    scores = np.where(missed[:, None], 0.0, scores)
    if recipe.soft_punish_tokens:
        scores = np.column_stack([scores, punishment])
        weights = np.append(weights, 1.0)
    scores = np.where(np.isnan(total)[:, None], np.nan, scores)
    normal = np.empty_like(scores)
    for index in range(scores.shape[1]):
        centred, deviation = _centred(scores[:, index].reshape(-1, size))
        normal[:, index] = (centred / (deviation + EPSILON)).reshape(-1)
    present = ~np.isnan(normal)
    counted = (present * weights).sum(1)
    summed = np.where(present, normal, 0.0) @ weights
    combined = np.where(
        counted > 0, summed * (weights.sum() / np.where(counted > 0, counted, 1.0)), np.nan
    )
    spread = (np.where(present & (weights > 0), normal, 0.0) != 0).any(1).reshape(-1, size).any(1)
    centred, deviation = _centred(combined[None])
    return np.nan_to_num(centred / (deviation + EPSILON), nan=0.0)[0], spread
