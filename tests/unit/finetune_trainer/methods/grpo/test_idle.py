"""Why a step has nothing to learn from: the reward that is to blame, and the remedy."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_rewards.scores.samples import Item
from finetune_trainer.methods.grpo.idle import cause
from finetune_trainer.process.distributed import Ranks
from support.grpo.stand_ins import ONE, TWO, Rolled, completion, rolled_config


@pytest.mark.parametrize(
    ("drawn", "answers", "settings", "words"),
    [
        ("A", {"a": Item(score=1.0)}, {}, "reward a gave 1 to every completion: take prompts"),
        ("A", {"a": Item(score=float("0.25"))}, {}, "reward a gave 0.25 to every completion"),
        ("A", {"a": Item(error="ValueError")}, {}, "reward a failed on every completion, such as"),
        ("A", {"a": Item()}, {}, "reward a gave no score to any completion"),
        (
            "A",
            {"a": Item(error="broken"), "b": Item(score=1.0)},
            {"rewards": [ONE, TWO]},
            "reward a failed on every completion, such as with 'broken': mend it; `finetune reward "
            "test` shows it on a laptop; reward b gave 1 to every completion",
        ),
        (
            "A",
            {"a": Item(error="broken"), "b": Item(score=1.0)},
            {"rewards": [{**ONE, "weight": 0, "gate": 0.5}, TWO]},
            "reward a failed on every completion",
        ),
        (
            "A",
            {"a": Item(error="broken"), "b": Item()},
            {"rewards": [ONE, TWO]},
            "reward b gave no score to any completion",
        ),
    ],
)
def test_the_cause_names_the_reward_and_a_remedy(
    tmp_path: Any, alone: Ranks, drawn: str, answers: Any, settings: Any, words: str
) -> None:
    scorers = {name: (lambda text, item=item: item) for name, item in answers.items()}
    rolled = Rolled(
        rolled_config(tmp_path, **settings), alone, lambda *_: completion(drawn), scorers
    )
    found = rolled.collect()
    assert not found.found.spread.any()
    assert words in cause(found, rolled.recipe)


def test_the_cause_may_be_the_length(tmp_path: Any, alone: Ranks) -> None:
    run = rolled_config(tmp_path, maskTruncated=True)
    draws = lambda request, sample: completion("Ax"[sample % 2], truncated=True)  # noqa: E731
    rolled = Rolled(run, alone, draws)
    found = rolled.collect()
    assert not found.found.spread.any()
    assert cause(found, rolled.recipe) == (
        "every completion was cut at rollout.maxTokens (8) before its end: raise it, or fine-tune "
        "the model to answer shortly first"
    )


def test_the_cause_tells_of_failures_beside_abstentions(tmp_path: Any, alone: Ranks) -> None:
    items = {"A": Item(error="broken"), "x": Item()}
    draws = lambda request, sample: completion("Axxx"[sample])  # noqa: E731
    rolled = Rolled(rolled_config(tmp_path), alone, draws, {"a": lambda text: items[text]})
    assert cause(rolled.collect(), rolled.recipe) == (
        "reward a failed on 4 of 16 completions, such as with 'broken', and gave no score to the "
        "others: mend it"
    )


def test_other_prompts_are_no_remedy_for_rewards_that_are_silent(
    tmp_path: Any, alone: Ranks
) -> None:
    scorers = {"a": lambda text: Item(error="broken"), "b": lambda text: Item()}
    rolled = Rolled(rolled_config(tmp_path, rewards=[ONE, TWO]), alone, scorers=scorers)
    assert "take prompts" not in cause(rolled.collect(), rolled.recipe)


def test_the_cause_is_no_reward_that_does_not_count(tmp_path: Any, alone: Ranks) -> None:
    rewards = [ONE, {**TWO, "weight": 0}]
    scorers = {"a": lambda text: Item(score=0.0), "b": lambda text: Item(score=1.0)}
    rolled = Rolled(rolled_config(tmp_path, rewards=rewards), alone, scorers=scorers)
    told = cause(rolled.collect(), rolled.recipe)
    assert "reward a gave 0" in told
    assert "reward b" not in told


def test_some_cut_completions_are_not_the_cause(tmp_path: Any, alone: Ranks) -> None:
    draws = lambda request, sample: completion("x", truncated=sample == 0)  # noqa: E731
    rolled = Rolled(rolled_config(tmp_path), alone, draws)
    assert cause(rolled.collect(), rolled.recipe).startswith("reward a gave 0 to every completion")


def test_the_cause_may_differ_between_prompts(tmp_path: Any, alone: Ranks) -> None:
    rolled = Rolled(
        rolled_config(tmp_path), alone, lambda request, _: completion("Ax"[request.key[3] % 2])
    )
    found = rolled.collect()
    assert "reward a gave the same to all completions of each prompt" in cause(found, rolled.recipe)


GATE = {**TWO, "weight": 0, "gate": 0.5}


def test_the_cause_may_be_a_gate(tmp_path: Any, alone: Ranks) -> None:
    """The other reward has a spread, which the gate hides."""
    scorers = {"a": lambda text: Item(score=float(text == "A")), "b": lambda _: Item(score=0.25)}
    draws = lambda request, sample: completion("Ax"[sample % 2])  # noqa: E731
    rolled = Rolled(rolled_config(tmp_path, rewards=[ONE, GATE]), alone, draws, scorers)
    found = rolled.collect()
    assert not found.found.spread.any()
    assert cause(found, rolled.recipe).startswith(
        "reward b scored every completion below its gate 0.5: lower the gate, take prompts"
    )


def test_a_gate_is_told_beside_the_rewards_of_what_passes(tmp_path: Any, alone: Ranks) -> None:
    scorers = {
        "a": lambda text: Item(score=float(text in "AB")),
        "b": lambda text: Item(score=float(text in "xy")),
    }
    draws = lambda request, sample: completion(("ABAB", "xyxy")[request.key[3] % 2][sample])  # noqa: E731
    rolled = Rolled(rolled_config(tmp_path, rewards=[ONE, GATE]), alone, draws, scorers)
    found = rolled.collect()
    assert not found.found.spread.any()
    assert cause(found, rolled.recipe).startswith(
        "reward b scored 8 of 16 completions below its gate 0.5; reward a gave 0 to every other "
        "completion: lower the gate, "
    )


def test_a_gate_that_is_passed_is_not_the_cause(tmp_path: Any, alone: Ranks) -> None:
    scorers = {"a": lambda _: Item(score=0.0), "b": lambda _: Item(score=0.5)}
    rolled = Rolled(rolled_config(tmp_path, rewards=[ONE, GATE]), alone, scorers=scorers)
    assert cause(rolled.collect(), rolled.recipe).startswith(
        "reward a gave 0 to every completion: take prompts"
    )


def test_a_reward_that_is_silent_here_and_there_is_told_by_what_it_gives(
    tmp_path: Any, alone: Ranks
) -> None:
    items = {"A": Item(score=0.0), "B": Item(error="broken"), "C": Item()}
    draws = lambda request, sample: completion("ABCA"[sample])  # noqa: E731
    rolled = Rolled(rolled_config(tmp_path), alone, draws, {"a": lambda text: items[text]})
    assert cause(rolled.collect(), rolled.recipe).startswith(
        "reward a gave 0 to every completion: take prompts"
    )


def test_a_gate_that_is_unknown_here_and_there_is_not_the_cause(
    tmp_path: Any, alone: Ranks
) -> None:
    scorers = {
        "a": lambda _: Item(score=0.0),
        "b": lambda text: Item(error="broken") if text == "A" else Item(score=1.0),
    }
    rolled = Rolled(rolled_config(tmp_path, rewards=[ONE, GATE]), alone, scorers=scorers)
    assert cause(rolled.collect(), rolled.recipe).startswith("reward a gave 0 to every completion")


@pytest.mark.parametrize(("item", "words"), [(Item(error="e"), "failed on"), (Item(), "gave no")])
def test_a_gate_that_is_unknown_everywhere_is_the_cause(
    tmp_path: Any, alone: Ranks, item: Item, words: str
) -> None:
    scorers = {"a": lambda text: Item(score=float(text == "A")), "b": lambda _: item}
    rolled = Rolled(rolled_config(tmp_path, rewards=[ONE, GATE]), alone, scorers=scorers)
    assert cause(rolled.collect(), rolled.recipe).startswith(f"reward b {words}")
