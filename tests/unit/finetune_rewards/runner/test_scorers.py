"""What of a builtin reward fails is told; what is wrong with its settings, in words for users."""

from __future__ import annotations

import json
from typing import Any

import pytest

from finetune_rewards.builtin import load
from finetune_rewards.scores.samples import Item
from support.rewards.runners import samples


def items(described: dict[str, Any], *completions: str) -> list[Item]:
    """Return what a builtin reward says of completions."""
    (score,) = load(json.dumps([{"name": "form", **described}]).encode()).values()
    return score(samples(*completions))


def test_settings_that_turn_out_to_be_wrong_are_told_in_words() -> None:
    assert items({"exact": {"answer": "city"}}, "Rome") == [
        Item(
            error="reward form: no row has the column 'city'; "
            "the rows have no other columns than the prompt"
        )
    ]


SHORT = {"length": {"unit": "Characters", "most": 9}}


class Failing(str):
    """A completion that fails whoever reads it."""

    error: type[Exception] = LookupError

    def __len__(self) -> int:
        raise self.error("what a row says")


class Exhausting(Failing):
    error = MemoryError


def test_a_library_that_fails_is_named_by_its_error_alone() -> None:
    assert items(SHORT, Failing("a"), "b") == [Item(error="LookupError")] * 2


def test_memory_that_gives_out_is_the_workers_to_handle() -> None:
    with pytest.raises(MemoryError):
        items(SHORT, Exhausting("a"))
