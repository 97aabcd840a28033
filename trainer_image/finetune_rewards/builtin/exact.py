"""Equal text."""

from __future__ import annotations

from typing import Any

from finetune_contract.rewards import ExactReward
from finetune_rewards.builtin import Scorer, compared
from finetune_rewards.builtin.patterns import extraction
from finetune_rewards.scores.columns import text_value


def scorer(settings: ExactReward, name: str) -> Scorer:
    """Return 1 for the column's text, 0 for another, or where the pattern is not found."""
    said = extraction(settings.pattern, name)

    def one(text: str | None, value: Any) -> float | None:
        found, answer = None if text is None else said(text), text_value(value)
        if answer is None or found is None:
            return None if answer is None else 0.0
        if settings.ignore_case:
            return float(found.casefold() == answer.casefold())
        return float(found == answer)

    return compared(one, settings, settings.answer, name)
