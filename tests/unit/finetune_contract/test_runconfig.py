"""RunConfig: versioned, fully defaulted, unknown fields refused; the digest is the recipe's."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from finetune_contract.runconfig import VERSION, RunConfig

MINIMAL: dict[str, Any] = {
    "version": VERSION,
    "recipe": {"model": {"uri": "hf://a/b"}, "data": {"train": [{"uri": "s3://d/a.jsonl"}]}},
    "layout": {
        "job": {"name": "job", "namespace": "ns", "uid": "u"},
        "attempt": 1,
        "image": "trainer",
        "outputUri": "s3://out",
    },
}


def config(recipe: dict[str, Any] | None = None, **layout: Any) -> RunConfig:
    return RunConfig.model_validate(
        {
            **MINIMAL,
            "recipe": {**MINIMAL["recipe"], **(recipe or {})},
            "layout": {**MINIMAL["layout"], **layout},
        }
    )


def test_a_document_survives_its_own_json() -> None:
    assert RunConfig.model_validate_json(config(workers=4).to_json()) == config(workers=4)


@pytest.mark.parametrize("place", [(), ("recipe",), ("layout",), ("recipe", "model")])
def test_unknown_fields_are_refused(place: tuple[str, ...]) -> None:
    document = json.loads(config().to_json())
    target = document
    for key in place:
        target = target[key]
    target["surprise"] = 1
    with pytest.raises(ValidationError, match="surprise"):
        RunConfig.model_validate(document)


def test_other_versions_are_refused() -> None:
    with pytest.raises(ValidationError, match="version"):
        RunConfig.model_validate({**MINIMAL, "version": "finetune.dev/runconfig/v2"})


def test_the_digest_is_the_recipes_alone() -> None:
    digest = config().recipe.digest()
    assert config(workers=8, zeroStage=3, microBatchSize=4, attempt=2).recipe.digest() == digest
    assert config({"training": {}}).recipe.digest() == digest  # defaults said or unsaid
    for change in (
        {"training": {"seed": 1}},
        {"lora": {"rank": 8}},
        {"model": {"uri": "hf://a/c"}},
    ):
        assert config(change).recipe.digest() != digest


def test_a_global_batch_is_whole_micro_batches() -> None:
    assert config(workers=2, processesPerWorker=2, microBatchSize=4).accumulation_steps == 2
    assert config(workers=2, processesPerWorker=2).layout.world_size == 4
    with pytest.raises(ValidationError, match=r"32 is not a multiple of .* = 12"):
        config(workers=3, microBatchSize=4)


def test_one_length_is_set() -> None:
    with pytest.raises(ValidationError, match=r"set epochs or maxSteps, not both"):
        config({"training": {"epochs": 1, "maxSteps": 2}})
