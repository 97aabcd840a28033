"""Builtin rewards: one small file each, pure; a library is imported by the factory that needs it.

A factory takes the settings and the reward's name and raises RewardInvalid if they can not be used.
What it returns maps samples to one score per completion. None abstains: the row gives nothing to
compare with. What a completion says, or does not say, is scored, unless a library fails on it: what
it raises is the error of all samples at hand, so whoever gives them singly loses only that one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from typing import Any

from finetune_contract.rewards import SOURCES, Reward
from finetune_rewards.scores.answers import error, items
from finetune_rewards.scores.columns import column
from finetune_rewards.scores.errors import RewardInvalid
from finetune_rewards.scores.samples import Item, Samples, text_of

Scorer = Callable[[Samples], list[float | None]]

BUILTINS = tuple(name for name in SOURCES if name not in {"python", "http", "model"})


def scorer(reward: Reward) -> Scorer:
    """Return the scorer of a builtin reward.

    Raises:
        RewardInvalid: if its settings can not be used, or its library is not installed.
    """
    name = next(name for name in BUILTINS if getattr(reward, name) is not None)
    factory = import_module(f"{__name__}.{name}").scorer
    try:
        made: Scorer = factory(reward.source, reward.name)
    except ModuleNotFoundError as missing:
        raise RewardInvalid(
            f"reward {reward.name}: {missing.name} is not installed; it must be in the trainer's "
            "image (docs/installation.md says how), and for a try beside finetune"
        ) from missing
    return made


def each(one: Callable[[str], float | None]) -> Scorer:
    """Return the scorer of what judges a completion by its text alone."""
    return lambda samples: [one(text_of(text)) for text in samples.completions]


def compared(one: Callable[[str, Any], float | None], name: str, reward: str) -> Scorer:
    """Return the scorer of what judges a completion's text by the row's value of a column."""

    def score(samples: Samples) -> list[float | None]:
        values = column(samples, name, reward)
        pairs = zip(samples.completions, values, strict=True)
        return [one(text_of(completion), value) for completion, value in pairs]

    return score


def load(described: bytes) -> dict[str, Callable[[Samples], list[Item]]]:
    """Return what a worker scores with each reward of a JSON list by, by name.

    Whatever fails in it is an error, never the worker's end. Raises RewardInvalid.
    """
    rewards = [Reward.model_validate(value) for value in json.loads(described)]
    return {reward.name: _guarded(scorer(reward)) for reward in rewards}


def _guarded(score: Scorer) -> Callable[[Samples], list[Item]]:
    def items_of(samples: Samples) -> list[Item]:
        try:
            return items(score(samples), len(samples))
        except MemoryError:
            raise
        except RewardInvalid as invalid:  # in words for the user
            return [error(invalid.message)] * len(samples)
        except Exception as failure:  # noqa: BLE001 - of libraries that read what a model writes
            return [Item(error=type(failure).__name__)] * len(samples)

    return items_of
