"""The builtin rewards as a worker scores with them: whatever fails is an error, never its end."""

from __future__ import annotations

import json
from collections.abc import Callable

from finetune_contract.rewards import Reward
from finetune_rewards.builtin import Scorer, scorer
from finetune_rewards.scores.answers import error, items
from finetune_rewards.scores.errors import RewardInvalid
from finetune_rewards.scores.samples import Item, Samples


def load(described: bytes) -> dict[str, Callable[[Samples], list[Item]]]:
    """Return what scores with each reward of a JSON list, by name; raise RewardInvalid."""
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
