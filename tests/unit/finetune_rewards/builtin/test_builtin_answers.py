"""Builtin rewards that compare with a column: what is equal, what not, what can not be told."""

# ruff: noqa: RUF001 - marks of other scripts

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
import reasoning_gym

from finetune_contract.rewards import MathReward
from finetune_rewards.builtin import math as mathematics
from finetune_rewards.scores.errors import RewardInvalid
from support.rewards.builtin import samples, score


@pytest.mark.parametrize(
    ("answer", "completion", "expected"),
    [
        ("1/2", "So it is 0.5.", 1.0),
        ("1/2", r"Hence \boxed{\frac{2}{4}}", 1.0),
        ("1/2", "So it is 0.4.", 0.0),
        ("1/2", "no idea", 0.0),
        ("1/2", "", 0.0),
        (72, "First 3 apples, then 72.", 1.0),
        (72.5, "It is 72.5", 1.0),
        ("10 - 4 = 6\n#### 6", "The answer is 6", 1.0),
        ("10 - 4 = 6\n#### 6", "The answer is 10", 0.0),
        ("2x+1", "The answer is $1 + 2x$", 1.0),
        ("2x+1", "The answer is 2", 0.0),
        ("x^2+1", "x^2+1", 1.0),
        (r"$\sqrt{4}$", "2", 1.0),
        ("5", r"It may be \boxed{5}, not 6", 1.0),
        ("5", "<think>It is 6?</think><answer>5</answer>", 1.0),
        ("6", "<think>It is 6?</think><answer>5</answer>", 0.0),
        ("6", r"<think>It is \boxed{6}?</think> It is 5.", 0.0),
        ("5", "<answer>6</answer> <answer>5</answer>", 1.0),
        ("2x+1", "<answer>\n1 + 2x </answer>", 1.0),
        ("2", "<answer>2x+1</answer>", 0.0),
        ("5", "<answer>The answer is 5</answer>", 1.0),
        ("The answer is 5", "5", 1.0),
        ("New York", r"\boxed{New York}", 1.0),
        ("", "5", None),
        (None, "5", None),
        (["5"], "5", None),
        ("nobody\nknows", "5", None),
    ],
)
def test_math_compares_values(answer: Any, completion: str, expected: float | None) -> None:
    assert score({"math": {}}, completion, answer=answer) == expected


def test_math_takes_the_column_that_it_is_told() -> None:
    assert score({"math": {"answer": "solution"}}, "4", answer="3", solution="4") == 1.0


def test_math_fails_where_it_takes_too_long() -> None:
    asked = mathematics.scorer(MathReward(), "judge", seconds=0.3)
    with pytest.raises(TimeoutError, match=r"not compared within 0\.3 s"):
        asked(samples(r"\boxed{9^{9^{9^9}}}", answer=[r"\sqrt{5}"]))
    assert asked(samples("5", answer=["5.0"])) == [1.0]  # and goes on


def test_math_works_in_any_thread() -> None:
    found: list[float | None] = []
    thread = threading.Thread(target=lambda: found.append(score({"math": {}}, "0.5", answer="1/2")))
    thread.start()
    thread.join()
    assert found == [1.0]


@pytest.mark.parametrize(
    ("settings", "answer", "completion", "expected"),
    [
        ({}, " Paris ", "Paris\n", 1.0),
        ({}, "Paris", "paris", 0.0),
        ({"ignore_case": True}, "STRASSE", "straße", 1.0),
        ({}, "Paris", "It is Paris", 0.0),
        ({"pattern": r"is (\w+)"}, "Paris", "It is Rome. No, it is Paris!", 1.0),
        ({"pattern": r"is (\w+)"}, "Rome", "It is Rome. No, it is Paris!", 0.0),
        ({"pattern": r"is (\w+)"}, "Paris", "Paris", 0.0),
        ({"pattern": r"a(b)?"}, "b", "ab a", 1.0),
        ({}, 5, "5", 1.0),
        ({}, 5.0, "5.0", 1.0),
        ({}, 0.00001, "0.00001", 1.0),
        ({}, -2.5e-7, "-0.00000025", 1.0),
        ({}, 1e300, "1e+300", 1.0),
        ({}, True, "true", 1.0),
        ({}, "  ", "", None),
        ({}, None, "", None),
        ({}, {"a": 1}, "", None),
        ({"pattern": r"is (\w+)"}, None, "", None),
    ],
)
def test_exact(settings: Any, answer: Any, completion: str, expected: float | None) -> None:
    assert score({"exact": settings}, completion, answer=answer) == expected


@pytest.mark.parametrize(
    ("completion", "letter"),
    [
        ("B", "B"),
        ("b", "B"),
        (" b) ", "B"),
        ("The answer is C.", "C"),
        ("The answer is **C** because A is wrong", "C"),
        ("Answer: (D)", "D"),
        ("First I thought (A), the answer is B", "B"),
        ("The answer is B. Wait, the answer is A", "A"),
        (r"\boxed{C}", "C"),
        (r"\boxed{\text{c}}", "C"),
        ("<answer>\nd\n</answer>", "D"),
        ("I exclude (A) and take (C)", "C"),
        ("We get B.", "B"),
        ("It must be\n**D**", "D"),
        ("The correct answer is B. Option C is wrong", "B"),
        ("The answer is B because option A is too small", "B"),
        ("The answer is option **C**, not option D", "C"),
        ("<answer>B</answer> (option A ignores friction)", "B"),
        (r"\boxed{B}, so the answer is not A. Answer: A", "B"),
        (r"Answer: \(C\), not $D$", "C"),
        ("The answer is $D$ (A is too small)", "D"),
        ("I take option B (A is too small)", "B"),
        ("Choice C. It has (A) in it", "C"),
        ("A不对，答案是C。", "C"),
        ("答案：**B**，不是A", "B"),
        ("所以应该选（D）", "D"),
        ("正解はBです", "B"),
        ("정답은 C입니다", "C"),
        ("The correct option is B. Option A is wrong, option **C** isn't one.", "B"),
        ("Option B is right, option D cannot be.", "B"),
        ("Answer A is incorrect. Answer: C", "C"),
        ("It is not B", None),
        ("答案是ABC公司", None),
        ("A cat sat.", None),
        ("the answer is a cat", None),
        ("The answer is Dublin", None),
        ("E", None),
        ("", None),
    ],
)
def test_choice_finds_the_letter_settled_on(completion: str, letter: str | None) -> None:
    found = [score({"choice": {}}, completion, answer=answer) for answer in "ABCD"]
    assert found == [float(answer == letter) for answer in "ABCD"]


def test_math_reads_a_long_text_once_and_for_no_longer_than_it_may() -> None:
    assert score({"math": {}}, "**a " * 15_000, answer="42") == 0.0
    hurried = mathematics.scorer(MathReward(), "judge", seconds=0.01)
    with pytest.raises(TimeoutError, match=r"not compared within 0\.01 s"):
        hurried(samples("1 " * 20_000, answer=["42"]))


def test_choice_reads_a_long_text_once() -> None:
    assert score({"choice": {}}, ("answer" + " " * 20_000) * 5, answer="A") == 0.0


@pytest.mark.parametrize(
    ("answer", "expected"), [("(b)", 1.0), ("E", None), ("AB", None), ("", None)]
)
def test_choice_abstains_without_a_letter(answer: str, expected: float | None) -> None:
    assert score({"choice": {}}, "B", answer=answer) == expected
    assert score({"choice": {"choices": "XYZ"}}, "Y", answer="y") == 1.0


def test_reasoning_gym_scores_as_the_task_does() -> None:
    entry = reasoning_gym.create_dataset("chain_sum", seed=0, size=1)[0]
    task = {"reasoning_gym": {"task": "chain_sum"}}
    answered = {"reasoning_gym": {"task": "chain_sum", "pattern": "<answer>(.*?)</answer>"}}
    right = entry["answer"]
    for column in (entry, json.dumps(entry)):
        assert score(task, f" {right}\n", entry=column) == 1.0
        assert score(answered, f"<answer>{right}</answer>", entry=column) == 1.0
        assert score(answered, right, entry=column) == 0.0
        assert score(task, "none", entry=column) == 0.0
    for broken in ("no json", "[]", "{}", None, 5):
        assert score(task, right, entry=broken) is None


def test_what_a_task_raises_is_no_score() -> None:
    with pytest.raises(TypeError):
        score({"reasoning_gym": {"task": "chain_sum"}}, "5", entry={"answer": 5})


@pytest.mark.parametrize(
    "source",
    [{"math": {}}, {"exact": {}}, {"choice": {}}, {"reasoning_gym": {"task": "chain_sum"}}],
)
def test_a_missing_column_is_named(source: dict[str, Any]) -> None:
    with pytest.raises(RewardInvalid, match="judge: no row has the column"):
        score(source, "5", other="5")
