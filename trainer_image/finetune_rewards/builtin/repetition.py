"""Repeated word n-grams."""

from __future__ import annotations

from collections.abc import Callable

from finetune_contract.rewards import RepetitionReward
from finetune_rewards.scores.samples import Samples, text_of


def scorer(settings: RepetitionReward, name: str) -> Callable[[Samples], list[float | None]]:
    """Return distinct n-grams / n-grams of words, case aside; 1 for fewer than n words."""

    def score(samples: Samples) -> list[float | None]:
        return [_distinct(text_of(text), settings.ngram) for text in samples.completions]

    return score


def _distinct(text: str, size: int) -> float:
    words = text.casefold().split()
    grams = [tuple(words[start : start + size]) for start in range(len(words) - size + 1)]
    return len(set(grams)) / len(grams) if grams else 1.0
