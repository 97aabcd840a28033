"""The columns of the rows that rewards compare completions with."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from decimal import Decimal
from difflib import get_close_matches
from typing import Any

from finetune_contract.rewards import (
    ChoiceReward,
    ExactReward,
    MathReward,
    ReasoningGymReward,
    Reward,
)
from finetune_rewards.scores.errors import RewardInvalid
from finetune_rewards.scores.samples import Samples


def required_column(reward: Reward) -> str | None:
    """Return the column without which a reward can not score; None if it needs none."""
    match reward.source:
        case MathReward(answer=column) | ExactReward(answer=column) | ChoiceReward(answer=column):
            return column
        case ReasoningGymReward(entry=column):
            return column
        case _:
            return None


def check_columns(rewards: Sequence[Reward], columns: Collection[str]) -> None:
    """Refuse rewards whose column no row has, before anything is scored.

    Raises:
        RewardInvalid: naming the reward, its column, and those that there are.
    """
    for reward in rewards:
        column = required_column(reward)
        if column is not None and column not in columns:
            raise _missing(reward.name, column, columns)


def column(samples: Samples, name: str, reward: str) -> list[Any]:
    """Return a column's values, one per completion.

    Raises:
        RewardInvalid: if no row has it.
    """
    if name not in samples.columns:
        raise _missing(reward, name, samples.columns)
    return samples.columns[name]


def text_value(value: Any) -> str | None:
    """Return a value as the text to compare with: truth values as JSON writes them, and numbers as
    plain decimals, without an exponent where that takes no more than a line.

    None means that there is nothing to compare with: null, white space, a list or an object.
    """
    if isinstance(value, float) and 1e-20 < abs(value) < 1e20:
        return format(Decimal(repr(value)), "f")
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    return (value.strip() or None) if isinstance(value, str) else None


def _missing(reward: str, column: str, columns: Collection[str]) -> RewardInvalid:
    close = get_close_matches(column, list(columns), n=1)
    there = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(sorted(columns))}"
    return RewardInvalid(
        f"reward {reward}: no row has the column {column!r}; "
        + (there if columns else "the rows have no other columns than the prompt")
    )
