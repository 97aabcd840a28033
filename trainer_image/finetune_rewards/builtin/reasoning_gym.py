"""Tasks of reasoning-gym, scored as their own `score_answer` does."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from finetune_contract.rewards import ReasoningGymReward
from finetune_rewards.builtin.patterns import compiled, last_group
from finetune_rewards.scores.columns import column
from finetune_rewards.scores.errors import RewardInvalid
from finetune_rewards.scores.samples import Samples, text_of


def scorer(settings: ReasoningGymReward, name: str) -> Callable[[Samples], list[float | None]]:
    """Return the task's score; None where the column holds no entry."""
    from reasoning_gym import get_score_answer_fn

    pattern = compiled(settings.pattern, name, group=True) if settings.pattern else None
    try:
        score_answer = get_score_answer_fn(settings.task)
    except ValueError:
        raise RewardInvalid(
            f"reward {name}: reasoning-gym has no task {settings.task!r}; its gallery lists them"
        ) from None

    def one(completion: str, value: Any) -> float | None:
        entry = _entry(value)
        if entry is None:
            return None
        answer = completion.strip() if pattern is None else last_group(pattern, completion)
        return float(score_answer(answer, entry))

    def score(samples: Samples) -> list[float | None]:
        entries = column(samples, settings.entry, name)
        pairs = zip(samples.completions, entries, strict=True)
        return [one(text_of(completion), entry) for completion, entry in pairs]

    return score


def _entry(value: Any) -> dict[str, Any] | None:
    """Return a task's entry from an object or its JSON text; None if it is neither."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return None
    return value if isinstance(value, dict) and "answer" in value else None
