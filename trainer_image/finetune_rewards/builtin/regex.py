"""A pattern that must be found."""

from __future__ import annotations

from collections.abc import Callable

from finetune_contract.rewards import RegexReward
from finetune_rewards.builtin.patterns import compiled
from finetune_rewards.scores.samples import Samples, text_of


def scorer(settings: RegexReward, name: str) -> Callable[[Samples], list[float | None]]:
    """Return 1 where the pattern is found, else 0."""
    pattern = compiled(settings.pattern, name)

    def score(samples: Samples) -> list[float | None]:
        return [float(bool(pattern.search(text_of(text)))) for text in samples.completions]

    return score
