"""A batch of completions, and a reward over HTTP that is asked for their scores."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

from finetune_contract.rewards import Reward
from finetune_rewards.scores.samples import Answer, Samples
from finetune_rewards.services.circuit import Note, Waits
from finetune_rewards.services.http import HttpScorer
from support.rewards.frail_service import SHORT

TEXTS = ["a", "bb", "ccc", "dddd", "eeeee"]


def batch(*completions: str, **columns: list[Any]) -> Samples:
    """Return samples of the completions, or else of TEXTS."""
    texts = list(completions or TEXTS)
    return Samples(["?"] * len(texts), list(texts), [[1]] * len(texts), columns, step=7)


async def ask(
    url: str,
    samples: Samples | None = None,
    *,
    credentials_dir: str | None = None,
    ranks: int = 1,
    note: Note = lambda _: None,
    waits: Waits = SHORT,
    **settings: Any,
) -> Answer:
    """Return what a new scorer with these settings says of a batch."""
    reward = Reward.model_validate({"name": "judge", "http": {"url": url, **settings}})
    made = HttpScorer(reward, credentials_dir=credentials_dir, ranks=ranks, note=note, waits=waits)
    async with aclosing(made) as scorer:
        return await scorer.score(batch() if samples is None else samples)


def scores(answer: Answer) -> list[float | None]:
    """Return an answer's scores; there must be no error."""
    assert all(item.error is None for item in answer.items)
    return [item.score for item in answer.items]
