"""Phrases that must not be said."""

from __future__ import annotations

import re

from finetune_contract.rewards import BannedReward
from finetune_rewards.builtin import Scorer, each
from finetune_rewards.scores.errors import RewardInvalid

# Thai to Myanmar, Khmer, kana, Han: scripts without spaces between words.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff]"
)


def scorer(settings: BannedReward, name: str) -> Scorer:
    """Return 0 where one of the phrases stands as whole words, else 1. White space in a phrase
    stands for any; in scripts without spaces between words a phrase is found anywhere."""
    phrases = [phrase.split() for phrase in settings.phrases]
    if not all(phrases):
        raise RewardInvalid(f"reward {name}: phrases holds an empty phrase")
    any_phrase = re.compile(
        "|".join(map(_as_words, phrases)), re.IGNORECASE if settings.ignore_case else 0
    )
    return each(lambda text: float(not any_phrase.search(text)), settings)


def _as_words(words: list[str]) -> str:
    first, last = words[0][0], words[-1][-1]
    before = "" if _UNSPACED.match(first) else r"(?<!\w)"
    after = "" if _UNSPACED.match(last) else r"(?!\w)"
    return before + r"\s+".join(map(re.escape, words)) + after
