"""Regular expressions of users."""

from __future__ import annotations

import re
from collections.abc import Callable

from finetune_rewards.scores.errors import RewardInvalid


def compiled(pattern: str, name: str) -> re.Pattern[str]:
    """Return a pattern, ready to use; raise RewardInvalid, naming the reward and what is wrong."""
    try:
        return re.compile(pattern)
    except re.error as error:
        raise RewardInvalid(f"reward {name}: pattern {pattern!r}: {error}") from None


def extraction(pattern: str | None, name: str) -> Callable[[str], str | None]:
    """Return text -> the answer in it, without white space at both ends.

    That is what the pattern's first group finds last, None if nothing; without a pattern all of the
    text. Raises RewardInvalid as `compiled`, and for a pattern without a group.
    """
    if not pattern:
        return str.strip
    found = compiled(pattern, name)
    if not found.groups:
        raise RewardInvalid(
            f"reward {name}: pattern {pattern!r} has no group: put ( ) around the answer"
        )

    def last(text: str) -> str | None:
        groups = [match[1].strip() for match in found.finditer(text) if match[1] is not None]
        return groups[-1] if groups else None

    return last
