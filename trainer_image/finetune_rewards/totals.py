"""Several rewards' scores -> one total per completion.

The total is the weighted mean of the scores that are there, times the sum of all weights: a reward
that abstained or failed changes the total's variance, never its scale. A gate that is missed makes
it 0; without the gate's own score nobody knows, so the completion is left out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from finetune_contract.rewards import Reward

Floats = npt.NDArray[np.float64]


def totals(scores: Floats, rewards: Sequence[Reward]) -> Floats:
    """Return fp64 [N] of scores [N, rewards], NaN where there is none; NaN leaves a row out."""
    weights = np.array([reward.weight for reward in rewards])
    present = ~np.isnan(scores)
    there = (present * weights).sum(1)
    summed = np.where(present, scores, 0.0) @ weights
    with np.errstate(invalid="ignore", divide="ignore"):
        total = np.where(there > 0, summed * (weights.sum() / there), np.nan)
    return gated(total, scores, rewards)


def gated(total: Floats, scores: Floats, rewards: Sequence[Reward]) -> Floats:
    """Return totals [N] with 0 where any gate is missed, else NaN where a gate has no score."""
    gates = [(i, reward.gate) for i, reward in enumerate(rewards) if reward.gate is not None]
    missed, unknown = np.zeros((2, len(scores)), dtype=np.bool_)
    for index, gate in gates:
        missed |= scores[:, index] < gate
        unknown |= np.isnan(scores[:, index])
    return np.where(missed, 0.0, np.where(unknown, np.nan, total))
