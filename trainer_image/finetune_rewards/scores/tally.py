"""How often a reward fails in a row, which may end a run."""

from __future__ import annotations

from dataclasses import dataclass, field

from finetune_contract.rewards import OnError, Reward
from finetune_rewards.scores.errors import RewardFailed
from finetune_rewards.scores.samples import Answer

TOLD = 3  # different errors kept for the message


@dataclass
class Tally:
    """One reward's errors since its last score, over all batches."""

    reward: Reward
    in_a_row: int = 0
    texts: list[str] = field(default_factory=list)

    def add(self, answer: Answer) -> None:
        """Count a batch.

        Raises:
            RewardFailed: under FailAfter, at the failAfter-th error without a score between.
        """
        for item in answer.items:
            if item.error is not None:
                self._failed(item.error)
            elif item.score is not None:
                self.in_a_row = 0

    def _failed(self, text: str) -> None:
        self.in_a_row += 1
        self.texts = [*(told for told in self.texts if told != text), text][-TOLD:]
        reward = self.reward
        if reward.on_error is OnError.FAIL_AFTER and self.in_a_row >= reward.fail_after:
            raise RewardFailed(
                f"reward {reward.name} failed on {self.in_a_row} completions in a row: "
                + "; ".join(self.texts)
            )
