"""What a reward hands back, of whatever kind, becomes one item per completion."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_rewards.scores.answers import LONGEST_ERROR, error, items
from finetune_rewards.scores.samples import Item


def test_a_list_or_a_tuple_holds_scores() -> None:
    assert items([1, None], 2) == items((1.0, None), 2) == [Item(1.0), Item()]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"a": 1, "b": 2}, "it returned an object instead of a list of scores"),
        ("ab", "it returned text instead of a list of scores"),
        (True, "it returned a truth value instead of a list of scores"),
        ({1, 2}, "it returned of type set instead of a list of scores"),
        ([1], "it returned 1 scores for 2 completions"),
        ((1, 2, 3), "it returned 3 scores for 2 completions"),
    ],
)
def test_anything_else_is_an_error_of_each(values: Any, told: str) -> None:
    assert items(values, 2) == [Item(error=told)] * 2


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (True, "the score is a truth value instead of a number"),
        ("1", "the score is text instead of a number"),
        (float("inf"), "the score is inf"),
        (float("nan"), "the score is nan"),
        (10**400, "the score is too large"),
    ],
)
def test_a_value_that_is_no_score_is_an_error_of_its_own(value: Any, told: str) -> None:
    assert items([0, value], 2) == [Item(0.0), Item(error=told)]


def test_an_error_is_one_line_of_bounded_length() -> None:
    assert error("a\n \tb\x00c") == Item(error="a b c")
    assert error("x" * 999) == Item(error="x" * LONGEST_ERROR)
    # What is left after spaces are gone is what is cut, of a text that is not read to its end.
    assert error("  " * LONGEST_ERROR + "x" * 999) == Item(error="x" * LONGEST_ERROR)
    assert error("  " * 2 * LONGEST_ERROR + "x") == Item(error="")
