"""Scores of completions: each rank asks for its share, then all know all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from finetune_contract.rewards import Reward
from finetune_rewards.panel import Panel
from finetune_rewards.scores.samples import Answer, Samples, Text
from finetune_trainer.course.progress import note_of_ranks
from finetune_trainer.methods.grpo.prompts.dataset import Prompts
from finetune_trainer.methods.grpo.rewards.opened import failing_as_told
from finetune_trainer.methods.grpo.rewards.texts import Texts
from finetune_trainer.process.distributed import Ranks
from finetune_trainer.rollout.base import Completion

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Share:
    """What one rank asks of `total` completions: `samples` of those at `places`."""

    samples: Samples
    places: npt.NDArray[np.int64]
    total: int


@dataclass(frozen=True)
class Scores:
    """Of N completions by R rewards."""

    values: Floats  # [N, R], NaN where there is none
    failed: Bools  # [N, R]: no score because of an error
    failures: npt.NDArray[np.int64]  # [R], errors of replaced completions among them
    seconds: Floats  # [R], that the slowest rank waited
    errors: dict[str, str]  # a reward's first error, by its name

    def put(self, at: npt.NDArray[np.int64], others: Scores) -> Scores:
        """Return these with others in the place of some; errors and time add up."""
        values, failed = self.values.copy(), self.failed.copy()
        values[at], failed[at] = others.values, others.failed
        return Scores(
            values,
            failed,
            self.failures + others.failures,
            self.seconds + others.seconds,
            {**others.errors, **self.errors},
        )


def decoded(
    prompts: Prompts,
    rows: Sequence[int],
    completions: Sequence[Completion],
    texts: Texts,
    step: int,
) -> Samples:
    """Return what the rewards are asked of completions of prompts, one row for each."""
    documents = {row: prompts.document(row) for row in set(rows)}
    opened = {row: texts.opened(prompts.tokens(row).tolist()) for row in documents}
    said = [texts.completion(completion.tokens.tolist()) for completion in completions]
    asked: list[Text] = [documents[row]["prompt"] for row in rows]
    return Samples(
        prompts=asked,
        completions=[
            text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]
            for prompt, text in zip(asked, said, strict=True)
        ],
        completion_ids=[completion.tokens.tolist() for completion in completions],
        columns={
            name: [documents[row]["columns"].get(name) for row in rows] for name in prompts.columns
        },
        step=step,
        opened=[opened[row] for row in rows],
    )


def scored(
    panel: Panel,
    share: Share,
    ranks: Ranks,
    rewards: Sequence[Reward],
    stops: Callable[[], bool],
    tell: Callable[[int, str | None], None],
) -> Scores | None:
    """Return the scores of all completions, of which a share is this rank's.

    All ranks must call it, and all return None on a stop, however long a service is away. `tell`
    hears on every rank how many completions of all of them are scored, and what any waits for.
    Raises Failure with the reason of a RewardError.
    """
    with panel.scoring(share.samples) as batch:

        def busy() -> tuple[bool, int, str | None]:
            with failing_as_told():
                return batch.busy(), batch.done, batch.waits_for

        while True:
            told = ranks.everywhere(busy)
            tell(sum(done for _, done, _ in told), note_of_ranks(note for _, _, note in told))
            if not any(goes_on for goes_on, _, _ in told):
                break
            if stops():
                return None
        by_rank = ranks.everywhere(lambda: (share.places, batch.answers))
    return _gathered(by_rank, share.total, rewards)


def _gathered(
    by_rank: Sequence[tuple[npt.NDArray[np.int64], dict[str, Answer]]],
    total: int,
    rewards: Sequence[Reward],
) -> Scores:
    values = np.full((total, len(rewards)), np.nan)
    failed = np.zeros((total, len(rewards)), dtype=np.bool_)
    seconds, errors = np.zeros(len(rewards)), dict[str, str]()
    for theirs, answers in by_rank:
        for index, reward in enumerate(rewards):
            answer = answers.get(reward.name)
            if answer is None:
                continue
            seconds[index] = max(seconds[index], answer.seconds)
            for at, item in zip(theirs, answer.items, strict=True):
                if item.score is not None:
                    values[at, index] = item.score
                elif item.error is not None:
                    failed[at, index] = True
                    errors.setdefault(reward.name, item.error)
    return Scores(values, failed, failed.sum(0), seconds, errors)
