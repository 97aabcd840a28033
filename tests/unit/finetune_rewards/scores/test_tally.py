"""What is counted of a reward's answers."""

from __future__ import annotations

from finetune_contract.rewards import OnError, RegexReward, Reward
from finetune_rewards.scores.samples import Answer, Item
from finetune_rewards.scores.tally import Tally


def test_a_score_of_0_is_a_score() -> None:
    tally = Tally(Reward(name="a", regex=RegexReward(pattern="a")))
    tally.add(Answer([Item(0.0), Item(1.0), Item()], 1.5))
    stats = tally.stats()
    assert (stats.mean, stats.std, stats.abstentions, stats.seconds) == (0.5, 0.5, 1, 1.5)


def test_errors_that_are_masked_end_no_run_however_many_come() -> None:
    pattern = RegexReward(pattern="a")
    masked = Reward(name="a", regex=pattern, on_error=OnError.MASK, fail_after=2)
    tally = Tally(masked)
    tally.add(Answer.failed(5, "broken"))
    assert tally.stats().errors == 5
