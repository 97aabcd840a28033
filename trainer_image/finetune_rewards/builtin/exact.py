"""Equal text."""

from __future__ import annotations

from collections.abc import Callable

from finetune_contract.rewards import ExactReward
from finetune_rewards.builtin.patterns import compiled, last_group
from finetune_rewards.scores.columns import column, text_value
from finetune_rewards.scores.samples import Samples, text_of


def scorer(settings: ExactReward, name: str) -> Callable[[Samples], list[float | None]]:
    """Return 1 for the column's text, 0 for another, or where the pattern is not found."""
    pattern = compiled(settings.pattern, name, group=True) if settings.pattern else None

    def said(completion: str) -> str | None:
        return completion.strip() if pattern is None else last_group(pattern, completion)

    def one(completion: str, answer: str | None) -> float | None:
        found = said(completion)
        if answer is None or found is None:
            return None if answer is None else 0.0
        if settings.ignore_case:
            return float(found.casefold() == answer.casefold())
        return float(found == answer)

    def score(samples: Samples) -> list[float | None]:
        answers = column(samples, settings.answer, name)
        return [
            one(text_of(completion), text_value(answer))
            for completion, answer in zip(samples.completions, answers, strict=True)
        ]

    return score
