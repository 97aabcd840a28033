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

from finetune_contract.rewards import SOURCES, Part, Reads, Reward
from finetune_rewards.reading.thought import answer_of
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


def texts(samples: Samples, of: Part) -> list[str | None]:
    """Return what a reward reads of each completion; None where a thought has no end, and so no
    answer."""
    whole = map(text_of, samples.completions)
    if of is Part.WHOLE:
        return list(whole)
    return [answer_of(text, opened) for text, opened in zip(whole, samples.opened, strict=True)]


def each(one: Callable[[str], float | None], settings: Reads) -> Scorer:
    """Return the scorer of what judges a text by itself; 0 where there is no answer to judge."""
    return lambda samples: [0.0 if t is None else one(t) for t in texts(samples, settings.of)]


def each_with_opened(one: Callable[[str], float | None], settings: Reads) -> Scorer:
    """Return the scorer of what judges a text's form: what the prompt opened is a part of it."""

    def score(samples: Samples) -> list[float | None]:
        if settings.of is Part.ANSWER:
            return each(one, settings)(samples)
        pairs = zip(samples.opened, samples.completions, strict=True)
        return [one(opened + text_of(completion)) for opened, completion in pairs]

    return score


def compared(
    one: Callable[[str | None, Any], float | None], settings: Reads, name: str, reward: str
) -> Scorer:
    """Return the scorer of what judges a text, None for no answer, by the row's value of a
    column."""

    def score(samples: Samples) -> list[float | None]:
        values = column(samples, name, reward)
        pairs = zip(texts(samples, settings.of), values, strict=True)
        return [one(said, value) for said, value in pairs]

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
