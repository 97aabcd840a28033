"""The format of a completion, as tags."""

from __future__ import annotations

from collections.abc import Callable

from finetune_contract.rewards import TagsReward
from finetune_rewards.scores.samples import Samples, text_of


def scorer(settings: TagsReward, name: str) -> Callable[[Samples], list[float | None]]:
    """Return the share of tags that stand once, closed, after the end of those that do so before
    them in the list."""

    def score(samples: Samples) -> list[float | None]:
        return [_share(text_of(text), settings.tags) for text in samples.completions]

    return score


def _share(text: str, tags: tuple[str, ...]) -> float:
    end, good = 0, 0
    for tag in tags:
        opening, closing = f"<{tag}>", f"</{tag}>"
        if text.count(opening) == text.count(closing) == 1:
            start, stop = text.index(opening), text.index(closing)
            if end <= start < stop:
                end, good = stop + len(closing), good + 1
    return good / len(tags)
