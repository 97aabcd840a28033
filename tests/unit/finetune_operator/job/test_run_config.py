"""The RunConfig says what the job says, and nothing of a cluster that is not there."""

import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from finetune_operator.job.run_config import Mounts
from support.operator.jobs import config, job

EVERY_FIELD: dict[str, Any] = {
    "model": {"uri": "hf://o/m", "revision": "abc", "initFrom": "s3://b/older"},
    "data": {
        "train": [
            {"uri": "s3://d/a.jsonl", "format": "Messages", "weight": "0.5"},
            {"uri": "s3://d/b.jsonl"},
        ],
        "eval": [{"uri": "s3://d/e.jsonl", "format": "PromptCompletion"}],
        "onBadRow": "Skip",
    },
    "lora": {
        "rank": 4,
        "alpha": 9,
        "dropout": "0.25",
        "targets": ["MLP", "Head"],
        "rslora": True,
        "quantization": "NF4",
    },
    "training": {
        "learningRate": "3e-4",
        "maxSteps": 7,
        "globalBatchSize": 24,
        "sequenceLength": 64,
        "precision": "FP16",
        "schedule": "Linear",
        "warmupRatio": "0.5",
        "weightDecay": "0.125",
        "maxGradNorm": "2",
        "seed": 11,
        "deterministic": True,
    },
    "eval": {"everySteps": 5, "publish": "Best", "patience": 3},
}
RECIPE_OF_EVERY_FIELD = {
    "model": {"uri": "hf://o/m", "revision": "abc", "initFrom": "s3://b/older"},
    "data": {
        "train": [
            {"uri": "s3://d/a.jsonl", "format": "Messages", "weight": 0.5},
            {"uri": "s3://d/b.jsonl", "format": "Auto", "weight": 1.0},
        ],
        "eval": [{"uri": "s3://d/e.jsonl", "format": "PromptCompletion", "weight": 1.0}],
        "onBadRow": "Skip",
    },
    "method": "SFT",
    "lora": {
        "rank": 4,
        "alpha": 9,
        "dropout": 0.25,
        "targets": ["MLP", "Head"],
        "rslora": True,
        "dora": False,
        "quantization": "NF4",
    },
    "training": {
        "learningRate": 3e-4,
        "maxSteps": 7,
        "globalBatchSize": 24,
        "sequenceLength": 64,
        "precision": "FP16",
        "optimizer": "AdamW",
        "schedule": "Linear",
        "warmupRatio": 0.5,
        "weightDecay": 0.125,
        "maxGradNorm": 2.0,
        "seed": 11,
        "deterministic": True,
    },
    "eval": {"everySteps": 5, "publish": "Best", "patience": 3},
    "export": ["Adapter"],
}


def test_every_field_of_the_recipe_arrives() -> None:
    assert config(job(**EVERY_FIELD))["recipe"] == RECIPE_OF_EVERY_FIELD


def test_dora_is_part_of_the_recipe() -> None:
    assert config(job(lora={"dora": True}))["recipe"]["lora"]["dora"] is True


def test_what_to_publish_is_part_of_the_recipe() -> None:
    made = config(job(output={"uri": "s3://b/bot", "export": ["Adapter", "Merged"]}))
    assert made["recipe"]["export"] == ["Adapter", "Merged"]


def test_the_layout_follows_workers_memory_policy_and_mounts() -> None:
    made = config(
        job(
            workers={"replicas": 2, "resources": {"limits": {"nvidia.com/gpu": 4}}},
            memory={
                "zeroStage": 3,
                "offload": ["Parameters"],
                "gradientCheckpointing": "Always",
            },
            training={"globalBatchSize": 16, "microBatchSize": 2, "packing": False},
            checkpoint={"everySteps": 4, "everyMinutes": 7, "keep": 3},
            tracking={"type": "MLflow", "uri": "http://mlflow:5000", "project": "bots"},
            runPolicy={"terminationGracePeriodSeconds": 60},
        ),
        micro_batch_size=2,
        mounts=Mounts("/c/m", "/c/d", "/c/o", "/c/t", "/cache", "/scratch"),
        heartbeat_seconds=2.5,
        gpus=True,
    )
    assert made["layout"] == {
        "job": {"name": "bot", "namespace": "team", "uid": "u-1"},
        "attempt": 2,
        "image": "trainer:1",
        "outputUri": "s3://b/bot",
        "workers": 2,
        "processesPerWorker": 4,
        "gpus": True,
        "microBatchSize": 2,
        "zeroStage": 3,
        "offload": ["Parameters"],
        "gradientCheckpointing": "Always",
        "packing": False,
        "checkpoint": {"everySteps": 4, "everyMinutes": 7.0, "keep": 3},
        "tracking": {"type": "MLflow", "uri": "http://mlflow:5000", "project": "bots"},
        "credentials": {"model": "/c/m", "data": "/c/d", "output": "/c/o", "tracking": "/c/t"},
        "cacheDir": "/cache",
        "scratchDir": "/scratch",
        "heartbeat": {"lease": "bot-a2", "intervalSeconds": 2.5},
        "graceSeconds": 60.0,
    }


def test_what_is_left_to_the_trainer_is_not_told() -> None:
    made = config(job(memory={"zeroStage": "Auto"}, tracking={"type": "TensorBoard"}))
    assert "microBatchSize" not in made["layout"]
    assert "zeroStage" not in made["layout"]
    assert made["layout"]["tracking"] == {"type": "TensorBoard", "project": "team"}


def test_without_a_cluster_there_is_no_lease_to_renew() -> None:
    made = config(job(training={"epochs": 3}), heartbeat_seconds=None)
    assert "heartbeat" not in made["layout"]
    assert made["recipe"]["training"]["epochs"] == 3


def test_a_micro_batch_that_does_not_divide_the_batch_is_refused() -> None:
    with pytest.raises(ValidationError, match="not a multiple of"):
        config(job(training={"globalBatchSize": 4}), micro_batch_size=3)


def test_the_builder_imports_neither_kopf_nor_a_client_nor_torch() -> None:
    heavy = {"kopf", "kubernetes", "aiohttp", "torch"}
    code = "import sys, finetune_operator.job.run_config; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert not heavy & set(loaded.split())
