"""Scores of groups of completions -> advantages.

The baseline is always the mean of the completion's group. What a completion lacks is left out, of
the mean and of the spread as well: a score is never made up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from finetune_contract.grpo import Aggregate, GrpoRecipe, ScaleRewards
from finetune_rewards.scores.totals import gated, missed_gates, totals, weighted

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

EPSILON = 1e-4  # added to a standard deviation, as in TRL
ROUNDING = 1e-9  # two totals of other sets of rewards may differ by this, relatively, and be equal


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
    groups = np.arange(len(scores)) // recipe.group_size
    total = totals(scores, recipe.rewards, groups, punishment)
    compared, scaling = total, recipe.scaling
    if recipe.aggregate is Aggregate.GDPO:
        compared, scaling = _decoupled(scores, punishment, total, recipe), ScaleRewards.BATCH
    values = _scaled(compared, recipe.group_size, scaling)
    kept = ~np.isnan(total) & ~(truncated & recipe.mask_truncated)
    values = np.where(kept, values, 0.0)
    return Advantages(values, total, kept, (values != 0).reshape(-1, recipe.group_size).any(1))


def soft_punishment(lengths: npt.NDArray[np.int64], recipe: GrpoRecipe) -> Floats:
    """Return [N] from 0 to -1, over the last tokens before the limit (2503.14476, equation 13)."""
    tokens = recipe.soft_punish_tokens
    if tokens == 0:
        return np.zeros(len(lengths))
    over = lengths - (recipe.sampling.max_tokens - tokens)
    return -np.clip(over / tokens, 0.0, 1.0)


def _centred(groups: Floats) -> tuple[Floats, Floats]:
    """Return values [groups, size] less their group's mean, and its deviation [groups, 1].

    NaN stands for none, in and out. Values that differ by no more than rounding are centred to
    exactly 0.
    """
    there = ~np.isnan(groups)
    count = there.sum(1, keepdims=True)
    filled = np.where(there, groups, 0.0)
    mean = filled.sum(1, keepdims=True) / np.maximum(count, 1)
    least = np.where(there, groups, np.inf).min(1, keepdims=True)
    most = np.where(there, groups, -np.inf).max(1, keepdims=True)
    size = np.abs(filled).max(1, keepdims=True)
    differ = most - least > ROUNDING * np.maximum(size, 1.0)
    centred = np.where(there, np.where(differ, groups - mean, 0.0), np.nan)
    squares = np.where(there, centred, 0.0) ** 2
    deviation = np.sqrt(squares.sum(1, keepdims=True) / np.maximum(count - 1, 1))
    return centred, deviation


def _scaled(compared: Floats, size: int, scaling: ScaleRewards) -> Floats:
    """Return values [N] less their group's mean, scaled; NaN where there is none."""
    centred, deviation = _centred(compared.reshape(-1, size))
    if scaling is ScaleRewards.BATCH:
        _, deviation = _centred(compared[None])
    if scaling is not ScaleRewards.NONE:
        centred = centred / (deviation + EPSILON)
    return centred.reshape(-1)


def _decoupled(scores: Floats, punishment: Floats, total: Floats, recipe: GrpoRecipe) -> Floats:
    """Return the sum [N] of rewards that are each normalised within their group: 2601.05242.

    The paper's mean over the batch is 0 where no score is missing. Where one is, it would give
    groups without spread an advantage, so the sum has its group's mean as a baseline like any
    total; the paper's deviation over the batch stays. The punishment is one more reward, of weight
    1, and gates hold for each reward as they do for totals.
    """
    columns = [*scores.T]
    weights = [reward.weight for reward in recipe.rewards]
    if recipe.soft_punish_tokens:
        columns.append(punishment)
        weights.append(1.0)
    missed, _ = missed_gates(scores, recipe.rewards)
    groups = np.arange(len(scores)) // recipe.group_size
    normal = []
    for column in columns:
        whole = gated(np.where(np.isnan(total), np.nan, column), missed, groups)
        normal.append(_scaled(whole, recipe.group_size, ScaleRewards.GROUP))
    return weighted(np.column_stack(normal), np.array(weights))
