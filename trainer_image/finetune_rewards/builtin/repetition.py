"""Repeated word n-grams."""

from __future__ import annotations

from finetune_contract.rewards import RepetitionReward
from finetune_rewards.builtin import Scorer, each


def scorer(settings: RepetitionReward, name: str) -> Scorer:
    """Return distinct n-grams / n-grams of words, case aside; 1 for fewer than n words."""
    return each(lambda text: _distinct(text, settings.ngram), settings)


def _distinct(text: str, size: int) -> float:
    words = text.casefold().split()
    grams = [tuple(words[start : start + size]) for start in range(len(words) - size + 1)]
    return len(set(grams)) / len(grams) if grams else 1.0
