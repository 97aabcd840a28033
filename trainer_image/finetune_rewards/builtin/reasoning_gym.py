"""Tasks of reasoning-gym, scored as their own `score_answer` does."""

from __future__ import annotations

import json
from typing import Any

from finetune_contract.rewards import ReasoningGymReward
from finetune_rewards.builtin import Scorer, compared
from finetune_rewards.builtin.patterns import extraction
from finetune_rewards.scores.errors import RewardInvalid


def scorer(settings: ReasoningGymReward, name: str) -> Scorer:
    """Return the task's score; None where the column holds no entry."""
    from reasoning_gym import get_score_answer_fn

    said = extraction(settings.pattern, name)
    try:
        score_answer = get_score_answer_fn(settings.task)
    except ValueError:
        raise RewardInvalid(
            f"reward {name}: reasoning-gym has no task {settings.task!r}; its gallery lists them"
        ) from None

    def one(text: str | None, value: Any) -> float | None:
        entry = _entry(value)
        if entry is None:
            return None
        return float(score_answer(None if text is None else said(text), entry))

    return compared(one, settings, settings.entry, name)


def _entry(value: Any) -> dict[str, Any] | None:
    """Return a task's entry from an object or its JSON text; None if it is neither."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return None
    return value if isinstance(value, dict) and "answer" in value else None
