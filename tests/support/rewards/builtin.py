"""Builtin rewards asked without a runner."""

from __future__ import annotations

from typing import Any

from finetune_contract.rewards import Reward
from finetune_rewards.builtin import scorer
from finetune_rewards.scores.samples import Samples, Text


def reward(**source: Any) -> Reward:
    """Return a reward of one source."""
    return Reward.model_validate({"name": "judge", **source})


def samples(*completions: Text, ids: list[list[int]] | None = None, **columns: Any) -> Samples:
    """Return one sample per completion; a column has a value for each."""
    count = len(completions)
    return Samples(["?"] * count, list(completions), ids or [[1]] * count, columns)


def score(source: dict[str, Any], completion: Text, **columns: Any) -> float | None:
    """Return the score of one completion."""
    values = {name: [value] for name, value in columns.items()}
    [found] = scorer(reward(**source))(samples(completion, **values))
    return found
