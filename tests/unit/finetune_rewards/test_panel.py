"""The panel: all rewards at once, counted; an error is never a score."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from aiohttp import web

from finetune_contract.artifact import RewardIdentity
from finetune_contract.rewards import Reward
from finetune_rewards.panel import MODEL_SLICE, Panel
from finetune_rewards.scores.errors import RewardFailed, RewardInvalid
from finetune_rewards.scores.samples import Answer, Item, Samples
from support.services.judge import Document, after, good, judge_server, lengths

REGEX = {"regex": {"pattern": "a"}}


def reward(name: str, **settings: Any) -> Reward:
    return Reward.model_validate({"name": name, **settings})


def batch(*texts: str) -> Samples:
    return Samples(["?"] * len(texts), list(texts), [[1]] * len(texts))


class Runner:
    """The isolated runner, as far as the panel knows it."""

    def __init__(self, answers: Callable[[Samples], dict[str, list[Item]]]) -> None:
        self.answers = answers
        self.asked = 0

    async def score(self, samples: Samples) -> dict[str, Answer]:
        self.asked += 1
        return {name: Answer(items, 0.5) for name, items in self.answers(samples).items()}

    async def describe(self) -> tuple[RewardIdentity, ...]:
        return (RewardIdentity(name="mine", revision="sha256:1"),)


def runner_of(**items: list[Item]) -> Runner:
    return Runner(lambda samples: items)


def test_every_kind_of_reward_answers() -> None:
    main = threading.current_thread()
    threads: list[threading.Thread] = []

    def model(samples: Samples) -> list[Item]:
        threads.append(threading.current_thread())
        return [Item(score=0.25)] * len(samples)

    with judge_server() as judge:
        rewards = [
            reward("judge", http={"url": judge.url}),
            reward("mine", python={"configMap": "c", "key": "k"}),
            reward("model", model={"uri": "hf://a/b"}),
        ]
        runner = runner_of(mine=[Item(score=1.0), Item(), Item(error="no")])
        with Panel.open(rewards, runner=runner, model_scorers={"model": model}) as panel:
            answers = panel.score(batch("a", "bb", "ccc"))
            matrix = panel.score_matrix(answers)
            assert panel.identities() == (RewardIdentity(name="mine", revision="sha256:1"),)
    assert list(answers) == ["judge", "mine", "model"]
    assert matrix.dtype == np.float64
    np.testing.assert_array_equal(matrix, [[1, 1, 0.25], [2, np.nan, 0.25], [3, np.nan, 0.25]])
    assert threads == [main]


def test_rewards_work_at_the_same_time() -> None:
    """Each of three waits until the others are asked, too."""
    everyone = threading.Barrier(3, timeout=30)

    async def behave(document: Document, number: int) -> web.StreamResponse:
        return web.json_response({"scores": lengths(document)})

    def model(samples: Samples) -> list[Item]:
        everyone.wait()
        return [Item(score=0.0)] * len(samples)

    class Waiting(Runner):
        async def score(self, samples: Samples) -> dict[str, Answer]:
            from anyio.to_thread import run_sync

            await run_sync(everyone.wait)
            return await super().score(samples)

    with judge_server() as judge:

        async def waits(document: Document, number: int) -> web.StreamResponse:
            from anyio.to_thread import run_sync

            await run_sync(everyone.wait)
            return await behave(document, number)

        judge.behave = waits
        rewards = [
            reward("judge", http={"url": judge.url}),
            reward("mine", **REGEX),
            reward("model", model={"uri": "hf://a/b"}),
        ]
        runner = Waiting(lambda samples: {"mine": [Item(score=1.0)]})
        with Panel.open(rewards, runner=runner, model_scorers={"model": model}) as panel:
            assert panel.score_matrix(panel.score(batch("a"))).tolist() == [[1.0, 1.0, 0.0]]


def test_a_batch_that_is_left_is_given_up() -> None:
    """Else leaving the panel would wait for the service, which never answers."""
    with judge_server(after(3600)) as judge:
        settings = {"http": {"url": judge.url, "timeoutSeconds": 3600}}
        with Panel.open([reward("judge", **settings)]) as panel:
            with panel.scoring(batch("a")) as scoring:
                assert scoring.busy()
            judge.behave = good
            assert panel.score(batch("c"))["judge"].items == [Item(score=1.0)]


def test_a_batch_is_counted_once_however_often_its_end_is_asked_for() -> None:
    asked = []

    def model(samples: Samples) -> list[Item]:
        asked.append(samples)
        return [Item()]

    twice = {"onError": "FailAfter", "failAfter": 2}
    rewards = [reward("a", **REGEX, **twice), reward("m", model={"uri": "hf://a/b"})]
    runner = runner_of(a=[Item(error="no")])
    with (
        Panel.open(rewards, runner=runner, model_scorers={"m": model}) as panel,
        panel.scoring(batch("a")) as scoring,
    ):
        while scoring.busy():
            pass
        assert not scoring.busy()
        assert len(asked) == 1


MANY = [str(number) for number in range(2 * MODEL_SLICE + 1)]  # of three slices


def test_a_model_scores_slice_by_slice_and_no_more_once_it_is_left() -> None:
    asked: list[list[Any]] = []

    def model(samples: Samples) -> list[Item]:
        asked.append([*samples.completions])
        return [Item(score=float(text)) for text in samples.completions]  # type: ignore[arg-type]

    judge = reward("m", model={"uri": "hf://a/b"})
    with Panel.open([judge], model_scorers={"m": model}) as panel:
        with panel.scoring(batch(*MANY)) as scoring:
            assert scoring.busy()
            assert scoring.busy()
        assert asked == [MANY[:MODEL_SLICE], MANY[MODEL_SLICE:-1]]
        answer = panel.score(batch(*MANY))["m"]
        assert [item.score for item in answer.items] == [float(text) for text in MANY]


def test_a_models_seconds_are_those_of_all_its_slices_and_of_nothing_between() -> None:
    def model(samples: Samples) -> list[Item]:
        time.sleep(0.05)
        return [Item(score=1.0)] * len(samples)

    judge = reward("m", model={"uri": "hf://a/b"})
    began = time.monotonic()
    with (
        Panel.open([judge], model_scorers={"m": model}) as panel,
        panel.scoring(batch(*MANY)) as scoring,
    ):
        while scoring.busy():
            time.sleep(0.1)
        assert 0.15 <= scoring.answers["m"].seconds <= time.monotonic() - began - 0.3


def failing(*pattern: str) -> Runner:
    """Return a runner with one batch per word: e is an error, s a score, anything else abstains."""
    words = iter(pattern)
    kinds = {"e": Item(error="broken"), "s": Item(score=0.0)}
    return Runner(lambda _: {"a": [kinds.get(letter, Item()) for letter in next(words)]})


@pytest.mark.parametrize("words", [("ee-", "-e"), ("eee",), ("seee",), ("eses", "eee")])
def test_failures_in_a_row_end_the_run(words: tuple[str, ...]) -> None:
    judge = reward("a", **REGEX, onError="FailAfter", failAfter=3)
    with Panel.open([judge], runner=failing(*words)) as panel:
        for word in words[:-1]:
            panel.score(batch(*word))
        with pytest.raises(RewardFailed, match="a failed on 3 completions in a row: broken"):
            panel.score(batch(*words[-1]))


@pytest.mark.parametrize("settings", [{"onError": "FailAfter", "failAfter": 3}, {}])
def test_failures_between_scores_do_not(settings: dict[str, Any]) -> None:
    words = ["ees", "eesee", "s"] if settings else ["eeee", "eeee"]
    with Panel.open([reward("a", **REGEX, **settings)], runner=failing(*words)) as panel:
        for word in words:
            panel.score(batch(*word))


def test_the_last_different_errors_are_told() -> None:
    items = [Item(error=text) for text in ("one", "two", "two", "three", "four", "two")]
    judge = reward("a", **REGEX, onError="FailAfter", failAfter=6)
    with (
        Panel.open([judge], runner=runner_of(a=items)) as panel,
        pytest.raises(RewardFailed, match=r"in a row: three; four; two$"),
    ):
        panel.score(batch(*"abcdef"))


@pytest.mark.parametrize("answers", [{}, *({"a": [Item(score=1.0)] * n} for n in (1, 3))])
def test_a_missing_answer_or_one_of_another_length_is_an_error(
    answers: dict[str, list[Item]],
) -> None:
    with Panel.open([reward("a", **REGEX)], runner=runner_of(**answers)) as panel:
        found = panel.score(batch("a", "b"))["a"].items
    assert [item.score for item in found] == [None, None]
    assert all(item.error for item in found)


def test_a_models_error_is_of_its_completion() -> None:
    judge = reward("a", model={"uri": "hf://a/b"})
    items = [Item(error="it has too many tokens"), Item(score=1.0)]
    with Panel.open([judge], model_scorers={"a": lambda _: items}) as panel:
        assert panel.score(batch("a", "b"))["a"].items == items


def test_nobody_is_asked_about_nothing() -> None:
    runner = runner_of(a=[])
    with Panel.open([reward("a", **REGEX)], runner=runner) as panel:
        answers = panel.score(batch())
        assert panel.score_matrix(answers).shape == (0, 1)
    assert runner.asked == 0


def test_an_invalid_reward_ends_the_run_in_its_own_words() -> None:
    class Broken(Runner):
        async def score(self, samples: Samples) -> dict[str, Answer]:
            raise RewardInvalid("reward a: no")

    with (
        Panel.open([reward("a", **REGEX)], runner=Broken(lambda _: {})) as panel,
        pytest.raises(RewardInvalid, match="reward a: no"),
    ):
        panel.score(batch("a"))


def test_every_reward_needs_somebody_who_scores_it() -> None:
    with (
        pytest.raises(ValueError, match="reward a needs a runner"),
        Panel.open([reward("a", **REGEX)]),
    ):
        pass
    with (
        pytest.raises(ValueError, match="reward m needs a model scorer"),
        Panel.open([reward("m", model={"uri": "hf://a/b"})]),
    ):
        pass


def test_models_are_identified_beside_code_and_code_only_where_there_is_some() -> None:
    judge = reward("judge", model={"uri": "hf://a/b"})
    commit = RewardIdentity(name="judge", revision="abc")
    given: dict[str, Any] = {
        "model_scorers": {"judge": lambda _: [Item(score=1.0)]},
        "models": [commit],
    }
    code = RewardIdentity(name="mine", revision="sha256:1")
    with Panel.open([judge, reward("a", **REGEX)], runner=runner_of(), **given) as panel:
        assert panel.identities() == (code, commit)
    with Panel.open([judge], runner=runner_of(), **given) as panel:
        assert panel.identities() == (commit,)


def test_an_error_is_told_once_however_often_it_came() -> None:
    items = [Item(error=text) for text in ("one", "two", "two")]
    judge = reward("a", **REGEX, onError="FailAfter", failAfter=3)
    with (
        Panel.open([judge], runner=runner_of(a=items)) as panel,
        pytest.raises(RewardFailed, match=r"in a row: one; two$"),
    ):
        panel.score(batch(*"abc"))
