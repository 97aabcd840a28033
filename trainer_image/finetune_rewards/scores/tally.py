"""What became of a reward's answers: counts over the run, mean and spread over the last batch."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

from finetune_contract.rewards import OnError, Reward
from finetune_rewards.scores.errors import RewardFailed
from finetune_rewards.scores.samples import Answer

TOLD = 3  # different errors kept for the message


@dataclass(frozen=True)
class RewardStats:
    """A reward over the last batch of this process; `errors` and `abstentions` of all batches."""

    name: str
    mean: float | None  # None: nothing of the batch has a score
    std: float | None  # of the population
    errors: int
    abstentions: int
    seconds: float  # that the batch took


@dataclass
class Tally:
    """One reward's counts."""

    reward: Reward
    errors: int = 0
    in_a_row: int = 0  # errors since the last score
    abstentions: int = 0
    scores: list[float] = field(default_factory=list)
    seconds: float = 0.0
    texts: list[str] = field(default_factory=list)

    def add(self, answer: Answer) -> None:
        """Count a batch.

        Raises:
            RewardFailed: under FailAfter, at the failAfter-th error without a score between.
        """
        self.seconds = answer.seconds
        self.scores = [item.score for item in answer.items if item.score is not None]
        for item in answer.items:
            if item.error is not None:
                self._failed(item.error)
            elif item.score is None:
                self.abstentions += 1
            else:
                self.in_a_row = 0

    def stats(self) -> RewardStats:
        """Return what is told of the reward."""
        mean = statistics.fmean(self.scores) if self.scores else None
        std = statistics.pstdev(self.scores) if self.scores else None
        return RewardStats(self.reward.name, mean, std, self.errors, self.abstentions, self.seconds)

    def _failed(self, text: str) -> None:
        self.errors += 1
        self.in_a_row += 1
        self.texts = [*(told for told in self.texts if told != text), text][-TOLD:]
        reward = self.reward
        if reward.on_error is OnError.FAIL_AFTER and self.in_a_row >= reward.fail_after:
            raise RewardFailed(
                f"reward {reward.name} failed on {self.in_a_row} completions in a row: "
                + "; ".join(self.texts)
            )
