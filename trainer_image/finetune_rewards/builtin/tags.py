"""The format of a completion, as tags."""

from __future__ import annotations

from finetune_contract.rewards import TagsReward
from finetune_rewards.builtin import Scorer, each_with_opened


def scorer(settings: TagsReward, name: str) -> Scorer:
    """Return the share of tags that stand once, closed, after the end of those that do so before
    them in the list."""
    return each_with_opened(lambda text: _share(text, settings.tags), settings)


def _share(text: str, tags: tuple[str, ...]) -> float:
    end, good = 0, 0
    for tag in tags:
        opening, closing = f"<{tag}>", f"</{tag}>"
        if text.count(opening) == text.count(closing) == 1:
            start, stop = text.index(opening), text.index(closing)
            if end <= start < stop:
                end, good = stop + len(closing), good + 1
    return good / len(tags)
