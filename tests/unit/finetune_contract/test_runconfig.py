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


@pytest.mark.parametrize("layout", [{"workers": 4}, {"checkpoint": {"everyMinutes": None}}])
def test_a_document_survives_its_own_json(layout: dict[str, Any]) -> None:
    made = config(**layout)
    assert RunConfig.model_validate_json(made.to_json()) == made


def test_defaults_go_unsaid() -> None:
    """So that a trainer who does not know a new field reads the jobs that do not use it."""
    assert json.loads(config().to_json()) == MINIMAL
    said = config({"lora": {"rank": 16, "alpha": 8}}, workers=1, checkpoint={"keep": 2})
    document = json.loads(said.to_json())
    assert document["recipe"]["lora"] == {"alpha": 8}
    assert document["layout"] == MINIMAL["layout"]


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


EVERYTHING: dict[str, Any] = {
    "model": {"uri": "hf://a/b", "revision": "abc", "initFrom": "s3://b/older"},
    "data": {
        "train": [{"uri": "s3://d/a.jsonl", "format": "Messages", "weight": 0.5}],
        "eval": [{"uri": "s3://d/e.jsonl"}],
        "onBadRow": "Skip",
    },
    "lora": {"rank": 4, "dropout": 0.25, "targets": ["MLP", "Head"], "quantization": "NF4"},
    "training": {"learningRate": 3e-4, "maxSteps": 7, "precision": "FP16", "seed": 11},
    "eval": {"everySteps": 5, "publish": "Best", "patience": 3},
}


# Jobs that run while the operator is upgraded: another digest throws their checkpoints away.
@pytest.mark.parametrize(
    ("recipe", "digest"),
    [
        ({}, "337e57e0708b901d7e386b8f362783f1ae88ba53b2cce4391185384885bf47a6"),
        (
            {"lora": {"rank": 8}, "training": {"epochs": 3}},
            "afb4b68e2328b4083b919748f1e021898afc3c72d5f2d10ec349bd3308c34081",
        ),
        (EVERYTHING, "6af7dd6e4a52e98f8ba6a24ee4a2f99e1bc755923fe2bf34aab9aba3a4f983d6"),
    ],
    ids=["minimal", "few fields", "many fields"],
)
def test_digests_never_change(recipe: dict[str, Any], digest: str) -> None:
    assert config(recipe).recipe.digest() == f"sha256:{digest}"


def test_defaults_never_change() -> None:
    """Unsaid, they must mean to every reader what they meant to the writer."""
    defaults = config().model_dump(mode="json", by_alias=True, exclude_none=True)
    assert defaults["recipe"] == {
        "model": {"uri": "hf://a/b"},
        "data": {
            "train": [
                {
                    "uri": "s3://d/a.jsonl",
                    "format": "Auto",
                    "fileFormat": "Auto",
                    "weight": 1.0,
                }
            ],
            "eval": [],
            "onBadRow": "Fail",
        },
        "method": "SFT",
        "lora": {
            "rank": 16,
            "alpha": 32,
            "dropout": 0.0,
            "targets": ["Attention", "MLP"],
            "rslora": False,
            "dora": False,
            "quantization": "None",
        },
        "training": {
            "learningRate": 2e-4,
            "globalBatchSize": 32,
            "sequenceLength": 2048,
            "precision": "BF16",
            "optimizer": "AdamW",
            "schedule": "Cosine",
            "warmupRatio": 0.03,
            "weightDecay": 0.0,
            "maxGradNorm": 1.0,
            "seed": 0,
            "deterministic": False,
        },
        "eval": {"publish": "Last"},
        "export": ["Adapter"],
    }
    assert defaults["layout"] == {
        **MINIMAL["layout"],
        "workers": 1,
        "processesPerWorker": 1,
        "gpus": False,
        "offload": [],
        "gradientCheckpointing": "Auto",
        "packing": True,
        "checkpoint": {"everyMinutes": 10.0, "keep": 2},
        "credentials": {},
        "scratchDir": "/tmp/finetune",
        "graceSeconds": 120.0,
    }


def test_a_global_batch_is_whole_micro_batches() -> None:
    assert config(workers=2, processesPerWorker=2).layout.world_size == 4
    with pytest.raises(ValidationError, match=r"32 is not a multiple of .* = 12"):
        config(workers=3, microBatchSize=4)
