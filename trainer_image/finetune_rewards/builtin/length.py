"""A band of lengths."""

from __future__ import annotations

from finetune_contract.rewards import LengthReward, Part
from finetune_rewards.builtin import Scorer, each
from finetune_rewards.scores.errors import RewardInvalid
from finetune_rewards.scores.samples import text_of


def scorer(settings: LengthReward, name: str) -> Scorer:
    """Return 1 within the band, falling in a straight line to 0 over `tolerance` beyond it; None
    where tokens are to be counted of a text that came without any."""

    if settings.unit == "Tokens":
        if settings.of is Part.ANSWER:
            raise RewardInvalid(f"reward {name}: tokens are counted of the whole completion only")
        return lambda samples: [
            _in_band(len(ids), settings) if ids or not text_of(completion) else None
            for completion, ids in zip(samples.completions, samples.completion_ids, strict=True)
        ]
    of_characters = settings.unit == "Characters"
    return each(
        lambda text: _in_band(len(text if of_characters else text.split()), settings), settings
    )


def _in_band(length: int, settings: LengthReward) -> float:
    beyond = max(settings.least - length, length - settings.most, 0)
    if not beyond:
        return 1.0
    return max(0.0, 1 - beyond / settings.tolerance) if settings.tolerance else 0.0
