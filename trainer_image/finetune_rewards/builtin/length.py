"""A band of lengths."""

from __future__ import annotations

from collections.abc import Sequence

from finetune_contract.rewards import LengthReward
from finetune_rewards.builtin import Scorer
from finetune_rewards.scores.samples import Samples, Text, text_of


def scorer(settings: LengthReward, name: str) -> Scorer:
    """Return 1 within the band, falling in a straight line to 0 over `tolerance` beyond it; None
    where tokens are to be counted of a text that came without any."""

    def one(completion: Text, ids: Sequence[int]) -> float | None:
        text = text_of(completion)
        if settings.unit == "Tokens":
            return None if text and not ids else _in_band(len(ids), settings)
        return _in_band(len(text if settings.unit == "Characters" else text.split()), settings)

    def score(samples: Samples) -> list[float | None]:
        pairs = zip(samples.completions, samples.completion_ids, strict=True)
        return [one(completion, ids) for completion, ids in pairs]

    return score


def _in_band(length: int, settings: LengthReward) -> float:
    beyond = max(settings.least - length, length - settings.most, 0)
    if not beyond:
        return 1.0
    return max(0.0, 1 - beyond / settings.tolerance) if settings.tolerance else 0.0
