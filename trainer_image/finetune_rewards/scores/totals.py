"""Several rewards' scores -> one total per completion.

The total is the weighted mean of the scores that are there, times the sum of all weights: a reward
that abstained or failed changes the total's variance, never its scale. A gate that is missed makes
it 0, or as low as the lowest total below 0 of the group's completions that pass: a violation is
never better than what complies. Without the gate's own score nobody knows, so the completion is
left out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from finetune_contract.rewards import Reward

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Groups = Sequence[int] | npt.NDArray[np.int64]  # [N], one number for all completions of a prompt


def totals(
    scores: Floats, rewards: Sequence[Reward], groups: Groups, added: Floats | float = 0.0
) -> Floats:
    """Return fp64 [N] of scores [N, rewards], NaN where there is none; NaN leaves a row out.

    `added` [N] counts beside the rewards, before the gates.
    """
    total = weighted(scores, np.array([reward.weight for reward in rewards])) + added
    missed, unknown = missed_gates(scores, rewards)
    return gated(np.where(unknown, np.nan, total), missed, groups)


def weighted(values: Floats, weights: Floats) -> Floats:
    """Return the weighted mean [N] of the values there of [N, M], times the sum of all weights."""
    present = ~np.isnan(values)
    there = (present * weights).sum(1)
    summed = np.where(present, values, 0.0) @ weights
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(there > 0, summed * (weights.sum() / there), np.nan)


def missed_gates(scores: Floats, rewards: Sequence[Reward]) -> tuple[Bools, Bools]:
    """Return which completions [N] miss a gate, and of which of the others that is not known."""
    missed, unknown = np.zeros((2, len(scores)), dtype=np.bool_)
    for index, reward in enumerate(rewards):
        if reward.gate is not None:
            missed |= scores[:, index] < reward.gate
            unknown |= np.isnan(scores[:, index])
    return missed, unknown & ~missed


def gated(values: Floats, missed: Bools, groups: Groups) -> Floats:
    """Return values [N] with 0, or the group's lowest below it that passes, where one is missed."""
    _, group = np.unique(groups, return_inverse=True)
    lowest = np.zeros(len(values))
    passes = ~missed & ~np.isnan(values)
    np.minimum.at(lowest, group[passes], values[passes])
    return np.where(missed, lowest[group], values)
