"""What a reward handed back -> items: of any value at all, only a finite number is a score."""

from __future__ import annotations

import math
from typing import Any

from finetune_rewards.scores.samples import Item

LONGEST_ERROR = 200  # characters


def items(values: Any, count: int) -> list[Item]:
    """Return one item per completion; a list of another length is an error of each."""
    if not isinstance(values, list | tuple):
        return [error(f"it returned {_kind(values)} instead of a list of scores")] * count
    if len(values) != count:
        return [error(f"it returned {len(values)} scores for {count} completions")] * count
    return [item(value) for value in values]


def item(value: Any) -> Item:
    """Return the score, the abstention that None is, or what is wrong with the value."""
    if value is None:
        return Item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        return error(f"the score is {_kind(value)} instead of a number")
    try:
        score = float(value)
    except OverflowError:
        return error("the score is too large")
    return Item(score=score) if math.isfinite(score) else error(f"the score is {score}")


def error(text: str) -> Item:
    """Return an error with a text of bounded length and without control characters."""
    return Item(error=one_line(text))


def one_line(text: str) -> str:
    """Return a foreign text as it may stand in a log or in status."""
    shown = "".join(char if char.isprintable() else " " for char in text[: 4 * LONGEST_ERROR])
    return " ".join(shown.split())[:LONGEST_ERROR]


def _kind(value: Any) -> str:
    return {"str": "text", "dict": "an object", "bool": "a truth value"}.get(
        type(value).__name__, f"of type {type(value).__name__}"
    )
