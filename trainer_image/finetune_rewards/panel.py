"""All rewards of a run, asked at once, for callers that know no event loop."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from anyio.from_thread import BlockingPortal, start_blocking_portal

from finetune_contract.artifact import RewardIdentity
from finetune_contract.rewards import Reward
from finetune_rewards.runner.client import RunnerClient
from finetune_rewards.scores.samples import Answer, Item, Samples
from finetune_rewards.scores.tally import Tally
from finetune_rewards.scoring import Answered, Answers, Notes, Scoring
from finetune_rewards.services.http import HttpScorer
from finetune_rewards.services.together import together

MODEL_SLICE = 128  # completions that a model scores in one call of `busy`

ModelScorer = Callable[[Samples], list[Item]]


@dataclass(frozen=True)
class Panel:
    """Scores batches by every reward. Made by `open`; not for several threads at once."""

    rewards: Sequence[Reward]
    portal: BlockingPortal
    runner: RunnerClient | None  # None where no reward is isolated
    services: Mapping[str, HttpScorer]
    model_scorers: Mapping[str, ModelScorer]
    models: Sequence[RewardIdentity]
    notes: Notes
    tallies: Mapping[str, Tally]

    @classmethod
    @contextmanager
    def open(
        cls,
        rewards: Sequence[Reward],
        *,
        runner: RunnerClient | None = None,
        credentials: Mapping[str, str] | None = None,
        model_scorers: Mapping[str, ModelScorer] | None = None,
        models: Sequence[RewardIdentity] = (),
        ranks: int = 1,
    ) -> Iterator[Panel]:
        """Yield a panel.

        Args:
            rewards: all of the recipe's.
            runner: scores those that are isolated; needed if there are any.
            credentials: directories with the key `token`, by the reward's name.
            model_scorers: by the name of each model reward; called in the caller's thread.
            models: which models those are.
            ranks: processes that share a service's `concurrency`.

        Raises:
            RewardInvalid: if a service's credentials can not be used.
            ValueError: if nobody scores one of the rewards.
        """
        scorers = dict(model_scorers or {})
        for reward in rewards:
            if reward.isolated and runner is None:
                raise ValueError(f"reward {reward.name} needs a runner")
            if reward.model is not None and reward.name not in scorers:
                raise ValueError(f"reward {reward.name} needs a model scorer")
        notes = Notes()
        services = _services(rewards, credentials or {}, ranks, notes)
        with (
            start_blocking_portal() as portal,
            portal.wrap_async_context_manager(services) as opened,
        ):
            isolated = runner if any(reward.isolated for reward in rewards) else None
            tallies = {reward.name: Tally(reward) for reward in rewards}
            yield cls(rewards, portal, isolated, opened, scorers, models, notes, tallies)

    def score(self, samples: Samples) -> Answers:
        """Return each reward's answer, one item per completion, in the order of the rewards.

        All rewards work at the same time. Waits while a service is down.

        Raises:
            RewardFailed: if a reward failed as often in a row as its failAfter allows.
            RewardUnavailable: if a service was down for longer than its pauseSeconds.
            RewardInvalid: if a reward turns out to be unusable.
        """
        with self.scoring(samples) as batch:
            while batch.busy():
                pass
            return batch.answers

    @contextmanager
    def scoring(self, samples: Samples) -> Iterator[Scoring]:
        """Yield the batch as it is being scored; left early, nobody waits for answers any more."""
        answered = Answered(self.rewards, len(samples))
        elsewhere = self.portal.start_task_soon(self._elsewhere, samples, answered)
        try:
            found: Answers = {}
            here = self._here(samples, found, answered)
            counted = partial(self._counted, samples)
            yield Scoring(elsewhere, here, found, counted, self.notes, answered)
        finally:
            elsewhere.cancel()

    def identities(self) -> tuple[RewardIdentity, ...]:
        """Return what rewards are beyond the recipe: digests of the user's code, models' commits.

        Raises:
            RewardInvalid: if code does not load, or settings can not be used.
            SandboxUnavailable: if the kernel can not confine the code.
        """
        code = () if self.runner is None else self.portal.call(self.runner.describe)
        return (*code, *self.models)

    def score_matrix(self, answers: Mapping[str, Answer]) -> npt.NDArray[np.float64]:
        """Return scores [N, rewards] for `totals`; NaN for an abstention and for an error."""
        return np.array(
            [[item.score for item in answers[reward.name].items] for reward in self.rewards],
            dtype=np.float64,
        ).T

    def _here(self, samples: Samples, found: Answers, answered: Answered) -> Iterator[bool]:
        """Put the models' answers into `found`; yield True after each slice of their work."""
        for name, scorer in self.model_scorers.items():
            items: list[Item] = []
            seconds = 0.0
            for at in range(0, len(samples), MODEL_SLICE):
                began = time.monotonic()
                items += scorer(samples.slice(at, at + MODEL_SLICE))
                seconds += time.monotonic() - began
                found[name] = Answer(items, seconds)
                answered.by(name, at, at + MODEL_SLICE)
                yield True

    def _counted(self, samples: Samples, found: Answers) -> Answers:
        answers = {reward.name: _whole(found, reward, len(samples)) for reward in self.rewards}
        for name, answer in answers.items():
            self.tallies[name].add(answer)
        return answers

    async def _elsewhere(self, samples: Samples, answered: Answered) -> Answers:
        if not len(samples):
            return {}
        work: list[Coroutine[Any, Any, Answers]] = [
            _named(name, service, samples, answered) for name, service in self.services.items()
        ]
        if self.runner is not None:
            work.append(self._isolated(samples, answered))
        found: Answers = {}
        for answers in await together(work):
            found |= answers
        return found

    async def _isolated(self, samples: Samples, answered: Answered) -> Answers:
        assert self.runner is not None
        answers = await self.runner.score(samples)
        for reward in self.rewards:
            if reward.isolated:
                answered.by(reward.name, 0, len(samples))
        return answers


@asynccontextmanager
async def _services(
    rewards: Sequence[Reward], credentials: Mapping[str, str], ranks: int, notes: Notes
) -> AsyncIterator[dict[str, HttpScorer]]:
    async with AsyncExitStack() as stack:
        services = {}
        for reward in rewards:
            if reward.http is not None:
                secret, note = credentials.get(reward.name), notes.of(reward.name)
                made = HttpScorer(reward, credentials_dir=secret, ranks=ranks, note=note)
                services[reward.name] = await stack.enter_async_context(aclosing(made))
        yield services


async def _named(name: str, service: HttpScorer, samples: Samples, answered: Answered) -> Answers:
    return {name: await service.score(samples, partial(answered.by, name))}


def _whole(found: Answers, reward: Reward, count: int) -> Answer:
    answer = found.get(reward.name)
    if answer is None or len(answer.items) != count:
        return Answer.failed(count, "the runner gave no answer")
    return answer
