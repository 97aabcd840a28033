"""Builtin rewards: one small file each, pure; a library is imported by the factory that needs it.

A factory takes the settings and the reward's name and raises RewardInvalid if they can not be used.
What it returns maps samples to one score per completion. None abstains: the row gives nothing to
compare with. What a completion says, or does not say, is scored, unless a library fails on it: what
it raises is the error of all samples at hand, so whoever gives them singly loses only that one.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from finetune_contract.rewards import SOURCES, Reward
from finetune_rewards.scores.samples import Samples

Scorer = Callable[[Samples], list[float | None]]

BUILTINS = tuple(name for name in SOURCES if name not in {"python", "http", "model"})


def scorer(reward: Reward) -> Scorer:
    """Return the scorer of a builtin reward.

    Raises:
        RewardInvalid: if its settings can not be used.
    """
    name = next(name for name in BUILTINS if getattr(reward, name) is not None)
    factory = import_module(f"{__name__}.{name}").scorer
    made: Scorer = factory(reward.source, reward.name)
    return made
