"""Settings that contradict each other are refused; each of them alone is not."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from finetune_contract.recipe import Recipe

EVAL_DATA = [{"uri": "s3://d/eval.jsonl"}]


def recipe(*, held_out: bool = False, **fields: Any) -> Recipe:
    data = {"train": [{"uri": "s3://d/a.jsonl"}], "eval": EVAL_DATA if held_out else []}
    return Recipe.model_validate({"model": {"uri": "hf://a/b"}, "data": data, **fields})


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"lora": {"targets": ["Experts"], "dropout": 0.1}}, "Experts needs dropout 0 and no dora"),
        ({"lora": {"targets": ["Experts"], "dora": True}}, "Experts needs dropout 0 and no dora"),
        ({"lora": {"dora": True, "quantization": "NF4"}}, "dora needs quantization None"),
        (
            {"lora": {"quantization": "NF4"}, "export": ["Merged"]},
            "export Merged needs lora.quantization None",
        ),
        ({"eval": {"publish": "Best", "everySteps": 2}}, "need data.eval and everySteps"),
        ({"eval": {"publish": "Best"}, "held_out": True}, "need data.eval and everySteps"),
        ({"eval": {"patience": 2, "everySteps": 2}}, "need data.eval and everySteps"),
        ({"eval": {"patience": 2}, "held_out": True}, "need data.eval and everySteps"),
    ],
)
def test_contradictions_are_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        recipe(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"lora": {"targets": ["Experts"]}},
        {"lora": {"dropout": 0.1, "dora": True}},
        {"lora": {"quantization": "NF4"}, "export": ["Adapter"]},
        {"export": ["Adapter", "Merged"]},
        {"eval": {"everySteps": 2}},
        {"eval": {"publish": "Best", "everySteps": 2}, "held_out": True},
        {"eval": {"patience": 2, "everySteps": 2}, "held_out": True},
    ],
)
def test_what_does_not_contradict_itself_is_taken(fields: dict[str, Any]) -> None:
    assert recipe(**fields)


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("lora", "rank", 0),
        ("lora", "alpha", 0),
        ("lora", "dropout", 1.0),
        ("lora", "targets", []),
        ("training", "learningRate", 0),
        ("training", "epochs", 0),
        ("training", "maxSteps", 0),
        ("training", "globalBatchSize", 0),
        ("training", "sequenceLength", 7),
        ("training", "warmupRatio", 1.1),
        ("training", "weightDecay", -0.1),
        ("training", "maxGradNorm", -1),
        ("training", "seed", -1),
        ("eval", "everySteps", 0),
        ("eval", "patience", 0),
    ],
)
def test_values_out_of_range_are_named(part: str, field: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=rf"{part}\.{field}"):
        recipe(**{part: {field: value}})


def test_rows_are_weighed_by_more_than_nothing() -> None:
    data = {"train": [{"uri": "s3://d/a.jsonl", "weight": 0}]}
    with pytest.raises(ValidationError, match=r"data\.train\.0\.weight"):
        Recipe.model_validate({"model": {"uri": "hf://a/b"}, "data": data})
