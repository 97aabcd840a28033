"""Which errors of a reward end a run."""

from __future__ import annotations

import pytest

from finetune_contract.rewards import OnError, RegexReward, Reward
from finetune_rewards.scores.errors import RewardFailed
from finetune_rewards.scores.samples import Answer, Item
from finetune_rewards.scores.tally import Tally

PATTERN = RegexReward(pattern="a")


def test_a_score_of_0_is_a_score_and_an_abstention_is_none() -> None:
    tally = Tally(Reward(name="a", regex=PATTERN, on_error=OnError.FAIL_AFTER, fail_after=2))
    tally.add(Answer([Item(error="x"), Item(0.0), Item(error="x"), Item()], 1.5))
    with pytest.raises(RewardFailed, match="2 completions in a row: x; y"):
        tally.add(Answer([Item(error="y")], 1.5))


def test_errors_that_are_masked_end_no_run_however_many_come() -> None:
    masked = Reward(name="a", regex=PATTERN, on_error=OnError.MASK, fail_after=2)
    Tally(masked).add(Answer.failed(5, "broken"))
