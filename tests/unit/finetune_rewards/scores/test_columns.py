"""A reward that needs a column which no row has is refused, in words that help."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_rewards.scores.columns import check_columns
from finetune_rewards.scores.errors import RewardInvalid
from support.rewards.builtin import reward


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (["answers", "id"], "did you mean 'answers'?"),
        (["level", "id"], "there are: id, level"),
        ([], "the rows have no other columns than the prompt"),
    ],
)
def test_what_there_is_instead_is_told(columns: list[str], said: str) -> None:
    with pytest.raises(RewardInvalid) as caught:
        check_columns([reward(exact={})], columns)
    assert caught.value.message == f"reward judge: no row has the column 'answer'; {said}"


@pytest.mark.parametrize(
    ("source", "column"),
    [
        ({"math": {"answer": "solution"}}, "solution"),
        ({"exact": {}}, "answer"),
        ({"choice": {"answer": "letter"}}, "letter"),
        ({"reasoning_gym": {"task": "chain_sum"}}, "entry"),
    ],
)
def test_the_column_is_the_one_that_the_reward_reads(source: Any, column: str) -> None:
    check_columns([reward(**source)], [column])
    with pytest.raises(RewardInvalid, match=f"no row has the column '{column}'"):
        check_columns([reward(**source)], ["other"])


def test_a_reward_that_reads_no_column_needs_none() -> None:
    check_columns([reward(regex={"pattern": "a"})], [])
