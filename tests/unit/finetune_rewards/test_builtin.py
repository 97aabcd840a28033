"""Builtin rewards: what scores 1, what scores 0, and what can not be told."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import threading
from typing import Any

import pytest
import reasoning_gym
from hypothesis import given
from hypothesis import strategies as st

from finetune_contract.rewards import Reward
from finetune_rewards.builtin import BUILTINS, scorer
from finetune_rewards.builtin import math as mathematics
from finetune_rewards.errors import RewardInvalid
from finetune_rewards.samples import Samples, Text


def reward(**source: Any) -> Reward:
    return Reward.model_validate({"name": "judge", **source})


def samples(*completions: Text, ids: list[list[int]] | None = None, **columns: Any) -> Samples:
    count = len(completions)
    return Samples(["?"] * count, list(completions), ids or [[1]] * count, columns)


def score(source: dict[str, Any], completion: Text, **columns: Any) -> float | None:
    values = {name: [value] for name, value in columns.items()}
    [found] = scorer(reward(**source))(samples(completion, **values))
    return found


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


def test_math_fails_where_it_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mathematics, "SECONDS", 0.3)
    with pytest.raises(TimeoutError, match=r"not compared within 0\.3 s"):
        score({"math": {}}, r"\boxed{9^{9^{9^9}}}", answer="5")
    assert score({"math": {}}, "5", answer="5.0") == 1.0  # and goes on


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
        ({}, True, "true", 1.0),
        ({}, "  ", "", None),
        ({}, None, "", None),
        ({}, {"a": 1}, "", None),
        ({"pattern": r"is (\w+)"}, None, "", None),
    ],
)
def test_exact(settings: Any, answer: Any, completion: str, expected: float | None) -> None:
    assert score({"exact": settings}, completion, answer=answer) == expected


def test_regex() -> None:
    assert score({"regex": {"pattern": r"\d{3}"}}, "call 112 now") == 1.0
    assert score({"regex": {"pattern": r"^\d{3}"}}, "call 112 now") == 0.0


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


def test_choice_reads_a_long_text_once() -> None:
    assert score({"choice": {}}, ("answer" + " " * 20_000) * 5, answer="A") == 0.0


@pytest.mark.parametrize(
    ("answer", "expected"), [("(b)", 1.0), ("E", None), ("AB", None), ("", None)]
)
def test_choice_abstains_without_a_letter(answer: str, expected: float | None) -> None:
    assert score({"choice": {}}, "B", answer=answer) == expected
    assert score({"choice": {"choices": "XYZ"}}, "Y", answer="y") == 1.0


@pytest.mark.parametrize(
    ("completion", "share"),
    [
        ("<think>a</think> <answer>b</answer>", 1.0),
        ("<think>a</think>", 0.5),
        ("<think>a</think><answer>b", 0.5),
        ("<think>a</think><answer>b</answer><answer>c</answer>", 0.5),
        ("<answer>b</answer><think>a</think>", 0.5),
        ("<think><answer>b</answer></think>", 0.5),
        ("</think>a<think><answer>b</answer>", 0.5),
        ("think answer", 0.0),
    ],
)
def test_tags(completion: str, share: float) -> None:
    assert score({"tags": {"tags": ["think", "answer"]}}, completion) == share


SCHEMA = {"type": "object", "required": ["city"], "properties": {"city": {"type": "string"}}}


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ('{"city": "Rome"}', 1.0),
        ('```json\n{"city": "Rome"}\n```', 1.0),
        ('```\n{"city": "Rome"}\n```\n', 1.0),
        ('Here: {"city": "Rome"}', 0.0),
        ('{"city": 5}', 0.0),
        ("{", 0.0),
        ("", 0.0),
        ("[" * 100_000, 0.0),
        ('{"city": "Rome", "area": NaN}', 0.0),
    ],
)
def test_json_schema(completion: str, expected: float) -> None:
    definition = {"json_schema": {"definition": json.dumps(SCHEMA)}}
    assert score(definition, completion) == expected
    assert score({"json_schema": {}}, "[1, 2]") == 1.0


@pytest.mark.parametrize(
    ("schema", "ref"),
    [
        ({"$ref": "http://127.0.0.1:1/schema.json"}, "http://127.0.0.1:1/schema.json"),
        ({"properties": {"a": {"items": {"$ref": "#/$defs/b"}}}}, "#/$defs/b"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#nowhere"}}}, "#nowhere"),
        ({"$ref": "#/x/a", "x": {"a": {"$ref": "other.json"}}}, "other.json"),
        ({"$dynamicRef": "#none"}, "#none"),
    ],
)
def test_a_schema_that_refers_to_others_is_refused_at_its_start(schema: Any, ref: str) -> None:
    with pytest.raises(RewardInvalid, match=f"definition refers to '{re.escape(ref)}'"):
        scorer(reward(json_schema={"definition": json.dumps(schema)}))


def test_a_schema_may_refer_to_its_own_parts() -> None:
    tree = {"type": "object", "properties": {"next": {"$ref": "#"}, "n": {"$ref": "#n"}}}
    tree["$defs"] = {"n": {"$anchor": "n", "type": "integer"}}
    definition = {"json_schema": {"definition": json.dumps(tree)}}
    assert score(definition, '{"next": {"next": {"n": 1}}}') == 1.0
    assert score(definition, '{"next": {"next": {"n": "1"}}}') == 0.0
    assert score({"json_schema": {"definition": "true"}}, "1") == 1.0


@pytest.mark.parametrize(
    ("words", "expected"),
    [(0, 0.0), (2, 0.5), (3, 0.75), (4, 1.0), (6, 1.0), (7, 0.75), (10, 0.0), (20, 0.0)],
)
def test_length_falls_beyond_the_band(words: int, expected: float) -> None:
    band = {"length": {"least": 4, "most": 6, "tolerance": 4}}
    assert score(band, "word " * words) == expected


def test_length_counts_what_it_is_told() -> None:
    text = samples("a b", "a b", "", ids=[[1, 2, 3], [], []])
    for unit, found in {
        "Characters": [1.0, 1.0, 0.0],
        "Words": [0.0, 0.0, 0.0],
        "Tokens": [1.0, None, 0.0],
    }.items():
        band = reward(length={"unit": unit, "least": 3, "most": 3})
        assert scorer(band)(text) == found


def test_language() -> None:
    german = "Das Wetter ist heute sehr schön, und wir gehen in den Garten."
    english = "The weather is very nice today, and we are going to the garden."
    found = scorer(reward(language={"language": "de"}))(samples(german, english, ""))
    assert [value is not None and round(value, 1) for value in found] == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("completion", "expected"),
    [("a b c", 1.0), ("a b A b", 2 / 3), ("a a a a a", 1 / 4), ("a", 1.0), ("", 1.0)],
)
def test_repetition(completion: str, expected: float) -> None:
    assert score({"repetition": {"ngram": 2}}, completion) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("We can guarantee  a\nprofit.", 0.0),
        ("We can GUARANTEE A PROFIT", 0.0),
        ("We can guarantee a profitable year", 1.0),
        ("c++ is fine", 0.0),
        ("这是内幕消息吗", 0.0),
        ("nothing of it", 1.0),
    ],
)
def test_banned(completion: str, expected: float) -> None:
    phrases = ["guarantee a profit", "C++", "内幕"]
    assert score({"banned": {"phrases": phrases}}, completion) == expected


def test_banned_may_tell_case() -> None:
    assert score({"banned": {"phrases": ["US"], "ignore_case": False}}, "among us") == 1.0
    assert score({"banned": {"phrases": ["US"], "ignore_case": False}}, "the US") == 0.0


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
    ("source", "words"),
    [
        ({"exact": {"pattern": "("}}, r"missing \)"),
        ({"exact": {"pattern": "abc"}}, "no group"),
        ({"regex": {"pattern": "["}}, "unterminated"),
        ({"reasoning_gym": {"task": "chain_sum", "pattern": "abc"}}, "no group"),
        ({"reasoning_gym": {"task": "chain_summ"}}, "chain_summ"),
        ({"json_schema": {"definition": "{"}}, "not JSON"),
        ({"json_schema": {"definition": '{"type": "text"}'}}, "no JSON schema"),
        ({"language": {"language": "qq"}}, "'qq'"),
        ({"banned": {"phrases": ["a", " "]}}, "empty phrase"),
    ],
)
def test_settings_that_can_not_be_used(source: dict[str, Any], words: str) -> None:
    with pytest.raises(RewardInvalid, match=words) as caught:
        scorer(reward(**source))
    assert caught.value.message.startswith("reward judge: ")


@pytest.mark.parametrize(
    "source",
    [{"math": {}}, {"exact": {}}, {"choice": {}}, {"reasoning_gym": {"task": "chain_sum"}}],
)
def test_a_missing_column_is_named(source: dict[str, Any]) -> None:
    with pytest.raises(RewardInvalid, match="judge: no row has the column"):
        score(source, "5", other="5")


SETTINGS: dict[str, dict[str, Any]] = {
    "math": {},
    "exact": {},
    "regex": {"pattern": "a+"},
    "choice": {},
    "tags": {"tags": ["a"]},
    "json_schema": {},
    "length": {"most": 5},
    "language": {"language": "en"},
    "repetition": {},
    "banned": {"phrases": ["a"]},
    "reasoning_gym": {"task": "chain_sum"},
}
SCORERS = {name: scorer(reward(**{name: SETTINGS[name]})) for name in BUILTINS}


@given(text=st.text(max_size=60), dialogue=st.booleans())
@pytest.mark.parametrize("name", sorted(set(BUILTINS) - {"math"}))
def test_any_text_has_a_score_from_0_to_1(name: str, text: str, dialogue: bool) -> None:
    completion: Text = [{"role": "assistant", "content": text}] if dialogue else text
    columns = {"answer": ["A"], "entry": [{"answer": "A"}]}
    [found] = SCORERS[name](Samples(["?"], [completion], [[1]], columns))
    assert found is not None
    assert math.isfinite(found)
    assert 0 <= found <= 1
    assert SCORERS[name](Samples(["?"], [text], [[1]], columns)) == [found]


def test_libraries_are_imported_by_the_reward_that_needs_them() -> None:
    code = (
        "import sys; from finetune_rewards.builtin import scorer;"
        "from finetune_contract.rewards import Reward;"
        "scorer(Reward.model_validate({'name': 'a', 'regex': {'pattern': 'a'}}));"
        "print([m for m in ('math_verify', 'reasoning_gym', 'py3langid', 'jsonschema', 'torch')"
        " if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
