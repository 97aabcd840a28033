"""Every builtin reads the answer or the whole, as it is told and by default."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_rewards.builtin import BUILTINS, scorer
from finetune_rewards.scores.errors import RewardInvalid
from finetune_rewards.scores.samples import Samples
from support.rewards.builtin import reward

ENGLISH = "The weather is very nice today, and we are going to the garden."
ENTRY = {"question": "2 + 3 =", "answer": "5", "metadata": {}}

# A reward, its columns, a completion, and its scores of the answer and of the whole.
PARTS: list[tuple[dict[str, Any], dict[str, Any], str, float, float]] = [
    ({"math": {}}, {"answer": "5"}, r"<think>\boxed{6}</think>5", 1, 0),
    ({"exact": {}}, {"answer": "5"}, "<think>6</think>\n5", 1, 0),
    ({"regex": {"pattern": "6"}}, {}, "<think>6</think>5", 0, 1),
    ({"choice": {}}, {"answer": "C"}, r"<think>\boxed{A}</think>**C**", 1, 0),
    ({"tags": {"tags": ["think"]}}, {}, "<think>6</think>5", 0, 1),
    ({"json_schema": {}}, {}, "<think>6</think>[5]", 1, 0),
    ({"length": {"most": 1}}, {}, "<think>a b c</think> d", 1, 0),
    ({"repetition": {"ngram": 1}}, {}, "<think> a a a </think> b", 1, 4 / 6),
    ({"banned": {"phrases": ["secret"]}}, {}, "<think>a secret</think>no", 1, 0),
    ({"reasoning_gym": {"task": "chain_sum"}}, {"entry": ENTRY}, "<think>6</think>5", 1, 1 / 17),
]
WHOLE = {"regex", "tags", "length", "language", "repetition", "banned"}


def asked(
    source: dict[str, Any], completion: str, opened: str = "", **columns: Any
) -> float | None:
    [(name, settings)] = source.items()
    values = {column: [value] for column, value in columns.items()}
    samples = Samples(["?"], [completion], [[1]], values, opened=[opened])
    [found] = scorer(reward(**{name: settings}))(samples)
    return found


@pytest.mark.parametrize(
    ("source", "columns", "completion", "answer", "whole"),
    PARTS,
    ids=[next(iter(p[0])) for p in PARTS],
)
def test_a_builtin_reads_what_it_is_told(
    source: dict[str, Any], columns: dict[str, Any], completion: str, answer: float, whole: float
) -> None:
    [(name, settings)] = source.items()
    found = {
        of: asked({name: {**settings, "of": of}}, completion, **columns)
        for of in ("Answer", "Whole")
    }
    assert found == {"Answer": pytest.approx(answer), "Whole": pytest.approx(whole)}
    told = "Whole" if name in WHOLE else "Answer"
    assert asked(source, completion, **columns) == found[told]
    assert asked(
        {name: {**settings, "of": "Answer"}}, completion[: completion.index("</")], **columns
    ) in (0, 0.0)


def test_the_language_is_that_of_the_answer_where_it_is_told() -> None:
    text = f"<think>{ENGLISH}</think>Das Wetter ist heute schön."
    german = {"language": "de"}
    assert asked({"language": {**german, "of": "Answer"}}, text) == pytest.approx(1, abs=0.1)
    assert asked({"language": german}, text) == pytest.approx(0, abs=0.1)
    assert asked({"language": {**german, "of": "Answer"}}, f"<think>{text[:40]}") == 0


def test_every_builtin_is_told_what_to_read() -> None:
    assert {next(iter(part[0])) for part in PARTS} | {"language"} == set(BUILTINS)


def test_what_the_prompt_opened_is_a_part_of_the_form() -> None:
    tags, pattern = {"tags": {"tags": ["think", "answer"]}}, {"regex": {"pattern": "^<think>"}}
    completion = "a</think><answer>b</answer>"
    assert asked(tags, completion) == 0.5
    assert asked(tags, completion, "<think>\n") == 1
    assert asked(pattern, completion) == 0
    assert asked(pattern, completion, "<think>\n") == 1
    assert asked({"math": {}}, "5", "<think>\n", answer="5") == 0
    assert asked({"length": {"most": 1}}, "b", "<think>\n") == 1, "the header is not the model's"


def test_an_abstention_stays_one_without_an_answer() -> None:
    assert asked({"math": {}}, "<think>5", answer=None) is None
    assert asked({"exact": {}}, "<think>5", answer=None) is None


def test_tokens_are_counted_of_the_whole() -> None:
    with pytest.raises(RewardInvalid, match="whole completion only"):
        scorer(reward(length={"unit": "Tokens", "most": 5, "of": "Answer"}))
