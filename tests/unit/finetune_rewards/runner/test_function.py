"""A user's function is called as TRL calls one, and of its answer only numbers become scores."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest

from finetune_rewards.runner.function import MODULE, Function, Invalid
from finetune_rewards.scores.blame import Code
from finetune_rewards.scores.samples import Item
from support.rewards.runners import samples


@pytest.fixture(autouse=True)
def _no_module_left() -> Iterator[None]:
    yield
    sys.modules.pop(MODULE, None)


def function(source: str, name: str = "score") -> Function:
    return Function(Code("reward.py", source), name)


def scored(source: str, *completions: str, **columns: Any) -> list[Item]:
    return function(source).score(samples(*completions, **columns))


def test_everything_is_offered_by_name() -> None:
    source = """
def score(prompts, completions, completion_ids, answer, trainer_state, **kwargs):
    assert prompts == ["2+2="] * 2 and completions == ["4", "5"]
    assert completion_ids == [[1, 2]] * 2 and answer == ["4"] * 2
    assert trainer_state.global_step == 3
    assert set(kwargs) == {"level", "log_extra", "log_metric"} and kwargs["level"] == [1, 1]
    kwargs["log_extra"]("seen", [1, 2])
    return [a == c for a, c in zip(answer, completions)]
"""
    assert scored(source, "4", "5", answer="4", level=1) == [Item(1.0), Item(0.0)]


@pytest.mark.parametrize("star", ["", "*, "])
def test_a_function_is_given_what_it_names_and_no_more(star: str) -> None:
    source = f"def score({star}completions, level=None):\n    return level"
    assert scored(source, "a", "b", answer="4", level=7) == [Item(7.0)] * 2


def test_a_column_that_it_needs_and_rows_lack_is_named() -> None:
    (item,) = scored("def score(completions, solution):\n    return [1.0]", "a", answer="4")
    assert item.score is None
    assert item.error == "TypeError: score() missing 1 required positional argument: 'solution'"


def test_columns_never_take_the_place_of_completions() -> None:
    source = (
        "def score(completions, prompts, **_):\n    return [float(c == 'a') for c in completions]"
    )
    assert scored(source, "a", completions="x", prompts="y") == [Item(1.0)]


def test_an_async_function_keeps_its_event_loop() -> None:
    source = """
import asyncio
loops = []

async def score(completions):
    loops.append(asyncio.get_running_loop())
    assert len(set(loops)) == 1
    return await asyncio.gather(*(one(c) for c in completions))

async def one(completion):
    await asyncio.sleep(0)
    return len(completion)
"""
    loaded = function(source)
    for _ in range(2):
        assert loaded.score(samples("a", "bcd")) == [Item(1.0), Item(3.0)]


def test_a_callable_object_and_a_function_by_another_name_will_do() -> None:
    source = """
class Scorer:
    def __call__(self, completions, **kwargs):
        return [2] * len(completions)
judge = Scorer()
"""
    assert function(source, "judge").score(samples("a")) == [Item(2.0)]


@pytest.mark.parametrize(
    "answer",
    [
        "numpy.array([1, 0.5])",
        "(numpy.float32(1), numpy.float64(0.5))",
        "[True, fractions.Fraction(1, 2)]",
    ],
)
def test_numbers_of_any_kind_are_scores(answer: str) -> None:
    source = f"import fractions, numpy\ndef score(completions):\n    return {answer}"
    assert scored(source, "a", "b") == [Item(1.0), Item(0.5)]


def test_none_abstains_and_one_bad_item_costs_no_other() -> None:
    source = "def score(completions):\n    return [1, None, 'x', float('nan'), 0]"
    first, none, text, nan, zero = scored(source, *"abcde")
    assert (first, none, zero) == (Item(1.0), Item(), Item(0.0))
    for bad in (text, nan):
        assert bad.score is None
        assert bad.error


def test_memory_that_gave_out_is_told_to_the_worker() -> None:
    with pytest.raises(MemoryError):
        scored("def score(completions):\n    raise MemoryError", "a")


def test_dataclasses_and_pickles_find_the_module() -> None:
    source = """
from __future__ import annotations
import dataclasses, pickle

@dataclasses.dataclass
class Part:
    value: int

def score(completions):
    return [pickle.loads(pickle.dumps(Part(3))).value]
"""
    assert scored(source, "a") == [Item(3.0)]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def score(:\n", "SyntaxError: invalid syntax (reward.py line 1)"),
        (
            "import nothing_like_it",
            "ModuleNotFoundError: No module named 'nothing_like_it' (reward.py line 1); it must be "
            "in the trainer's image, and for a try beside finetune, not by pip install --user",
        ),
        ("x = 1\nraise SystemExit(3)", "SystemExit: 3 (reward.py line 2)"),
        ("score = 1", "reward.py has no function score"),
        ("def other(): pass", "reward.py has no function score"),
        ("a = '\0'", "SyntaxError: source code string cannot contain null bytes"),
    ],
)
def test_code_that_does_not_load_is_told_with_its_line(source: str, said: str) -> None:
    with pytest.raises(Invalid) as caught:
        function(source)
    assert str(caught.value) in (said, f"{said} (reward.py line 1)")
