"""Values that mean nothing are refused by their field."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from finetune_contract.recipe import Recipe

LEAST = {"model": {"uri": "hf://a/b"}, "data": {"train": [{"uri": "s3://d/a.jsonl"}]}}


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("lora", "rank", 0),
        ("lora", "alpha", 0),
        ("lora", "dropout", -0.1),
        ("lora", "targets", []),
        ("training", "learningRate", -1),
        ("training", "epochs", 0),
        ("training", "maxSteps", 0),
        ("training", "globalBatchSize", 0),
        ("training", "sequenceLength", 7),
        ("training", "warmupRatio", -1),
        ("training", "weightDecay", -0.1),
        ("training", "maxGradNorm", -1),
        ("training", "seed", -1),
        ("eval", "everySteps", 0),
        ("eval", "patience", 0),
    ],
)
def test_values_out_of_range_are_named(part: str, field: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=rf"{part}\.{field}"):
        Recipe.model_validate({**LEAST, part: {field: value}})
