"""Builtin rewards that look at the completion alone."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from finetune_rewards.builtin import scorer
from finetune_rewards.scores.errors import RewardInvalid
from support.rewards.builtin import reward, samples, score


def test_regex() -> None:
    assert score({"regex": {"pattern": r"\d{3}"}}, "call 112 now") == 1.0
    assert score({"regex": {"pattern": r"^\d{3}"}}, "call 112 now") == 0.0


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


def test_a_schema_that_never_comes_to_an_end_is_no_score() -> None:
    endless = {"json_schema": {"definition": '{"$ref": "#"}'}}
    with pytest.raises(RecursionError):
        score(endless, "1")
    assert score({"json_schema": {}}, "[" * 100_000) == 0.0


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
