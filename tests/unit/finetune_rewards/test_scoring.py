"""How far a batch is, while it is being scored."""

from __future__ import annotations

import asyncio
import threading

from aiohttp import web

from finetune_contract.rewards import Reward
from finetune_rewards.panel import MODEL_SLICE, Panel
from finetune_rewards.scores.samples import Answer, Item, Samples
from finetune_rewards.scoring import Answered, Scoring
from support.rewards.http_reward import batch
from support.services.judge import Document, good, judge_server

BUILTIN = {"name": "mine", "regex": {"pattern": "a"}}
MODEL = {"name": "model", "model": {"uri": "hf://a/b"}}


class Runner:
    """An isolated runner that answers once it may."""

    def __init__(self) -> None:
        self.may = threading.Event()

    async def score(self, samples: Samples) -> dict[str, Answer]:
        await asyncio.to_thread(self.may.wait, 30)
        return {"mine": Answer([Item(score=1.0)] * len(samples), 0.5)}

    async def describe(self) -> tuple[()]:
        return ()


def until(scoring: Scoring, done: int) -> None:
    while scoring.done < done:
        assert scoring.busy()
    assert scoring.done == done


def test_a_batch_moves_with_each_part_of_the_slowest() -> None:
    """Rewards of every kind: what the others have answered long ago is not done before."""
    may = [threading.Event() for _ in range(3)]
    runner, count = Runner(), 2 * MODEL_SLICE + 1  # three parts

    async def behave(document: Document, number: int) -> web.StreamResponse:
        await asyncio.to_thread(may[number].wait, 30)
        if number == 1:
            return web.Response(status=404)  # an error is an answer, too
        return await good(document, number)

    with judge_server(behave) as judge:
        service = {"url": judge.url, "batchSize": MODEL_SLICE, "concurrency": 1}
        documents = [BUILTIN, MODEL, {"name": "judge", "http": service}]
        rewards = [Reward.model_validate(document) for document in documents]
        scorers = {"model": lambda samples: [Item(score=0.0)] * len(samples)}
        with (
            Panel.open(rewards, runner=runner, model_scorers=scorers) as panel,
            panel.scoring(batch(*["a"] * count)) as scoring,
        ):
            may[0].set()
            for _ in range(4):  # the model's slices among them
                assert scoring.busy()
            assert scoring.done == 0
            runner.may.set()
            until(scoring, MODEL_SLICE)
            may[1].set()
            until(scoring, 2 * MODEL_SLICE)
            may[2].set()
            while scoring.busy():
                pass
            assert scoring.done == count


def test_a_completion_is_done_once_every_reward_has_answered_it() -> None:
    answered = Answered([Reward.model_validate(one) for one in (BUILTIN, MODEL)], 4)
    answered.by("mine", 0, 2)
    answered.by("mine", 0, 2)
    answered.by("model", 2, 9)
    assert answered.by_all == 0
    answered.by("model", 1, 2)
    assert answered.by_all == 1
    answered.by("mine", 2, 4)
    assert answered.by_all == 3


def test_what_a_batch_that_is_left_asked_for_is_given_up() -> None:
    given_up = threading.Event()

    class Hung(Runner):
        async def score(self, samples: Samples) -> dict[str, Answer]:
            try:
                await asyncio.Event().wait()
            finally:
                given_up.set()
            raise AssertionError("it waits for ever")

    with Panel.open([Reward.model_validate(BUILTIN)], runner=Hung()) as panel:
        with panel.scoring(batch()) as scoring:
            assert scoring.busy()
            assert not given_up.is_set()
        assert given_up.wait(30)
