"""A pattern that must be found."""

from __future__ import annotations

from finetune_contract.rewards import RegexReward
from finetune_rewards.builtin import Scorer, each_with_opened
from finetune_rewards.builtin.patterns import compiled


def scorer(settings: RegexReward, name: str) -> Scorer:
    """Return 1 where the pattern is found, else 0."""
    pattern = compiled(settings.pattern, name)
    return each_with_opened(lambda text: float(bool(pattern.search(text))), settings)
