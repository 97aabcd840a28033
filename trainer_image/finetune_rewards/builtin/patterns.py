"""Regular expressions of users."""

from __future__ import annotations

import re

from finetune_rewards.scores.errors import RewardInvalid


def compiled(pattern: str, name: str, *, group: bool = False) -> re.Pattern[str]:
    """Return a pattern, ready to use; with `group` it must have one.

    Raises:
        RewardInvalid: naming the reward and what is wrong.
    """
    try:
        found = re.compile(pattern)
    except re.error as error:
        raise RewardInvalid(f"reward {name}: pattern {pattern!r}: {error}") from None
    if group and not found.groups:
        raise RewardInvalid(
            f"reward {name}: pattern {pattern!r} has no group: put ( ) around the answer"
        )
    return found


def last_group(pattern: re.Pattern[str], text: str) -> str | None:
    """Return what the first group finds last, without white space at both ends; None if nothing."""
    found = None
    for match in pattern.finditer(text):
        if match[1] is not None:
            found = match[1].strip()
    return found
