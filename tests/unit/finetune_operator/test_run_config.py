"""The RunConfig says what the job says, and nothing of a cluster that is not there."""

import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from finetune_api.job import FineTuneJob
from finetune_api.validation import parse
from finetune_contract.runconfig import RunConfig
from finetune_operator.plan.run_config import Mounts, run_config


def job(**spec: Any) -> FineTuneJob:
    body = {
        "apiVersion": "finetune.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": "bot", "namespace": "team"},
        "spec": {
            "model": {"uri": "hf://o/m", "revision": "abc"},
            "data": {"train": [{"uri": "s3://d/a.jsonl", "format": "Messages"}]},
            "output": {"uri": "s3://b/bot"},
            **spec,
        },
    }
    return parse(body)


def config(of: FineTuneJob, **changes: Any) -> Any:
    arguments: dict[str, Any] = {
        "attempt": 2,
        "uid": "u-1",
        "image": "trainer:1",
        "micro_batch_size": None,
        "heartbeat_seconds": 15.0,
        "mounts": Mounts(),
    }
    told = run_config(of, **{**arguments, **changes}).to_json()
    understood = RunConfig.model_validate_json(told)
    return understood.model_dump(mode="json", by_alias=True, exclude_none=True)


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


EVERY_GRPO_FIELD: dict[str, Any] = {
    "groupSize": 4,
    "loss": "CISPO",
    "clipHigh": "3.5",
    "beta": "0.04",
    "scaleRewards": "Batch",
    "aggregate": "GDPO",
    "iterations": 2,
    "maskTruncated": True,
    "softPunishTokens": 16,
    "maxResamples": 3,
    "nothingToLearnSteps": 9,
    "rollout": {
        "engine": "OpenAI",
        "uri": "http://vllm:8000",
        "adapterDirectory": "/adapters",
        "credentialsSecretRef": {"name": "vllm"},
        "maxTokens": 32,
        "temperature": "0.7",
        "topP": "0.9",
        "topK": 40,
        "stop": ["###"],
    },
}
EVERY_REWARD: list[dict[str, Any]] = [
    {"name": "math", "weight": "0.5", "gate": "0.25", "math": {"answer": "a"}},
    {
        "name": "exact",
        "onError": "FailAfter",
        "failAfter": 7,
        "exact": {"answer": "b", "pattern": "x(.*)", "ignoreCase": True},
    },
    {"name": "regex", "regex": {"pattern": "y+"}},
    {"name": "choice", "choice": {"answer": "c", "choices": "ABC"}},
    {"name": "tags", "tags": {"tags": ["think", "answer"]}},
    {"name": "json", "jsonSchema": {"definition": '{"type": "object"}'}},
    {"name": "length", "length": {"unit": "Tokens", "least": 2, "most": 8, "tolerance": 3}},
    {"name": "language", "language": {"language": "de"}},
    {"name": "repetition", "repetition": {"ngram": 3}},
    {"name": "banned", "banned": {"phrases": ["never"], "ignoreCase": False}},
    {"name": "gym", "reasoningGym": {"task": "chain_sum", "entry": "e", "pattern": "z(.*)"}},
    {
        "name": "mine",
        "python": {
            "configMap": {"name": "code", "key": "score.py"},
            "function": "judge",
            "timeoutSeconds": 5,
            "memory": "512Mi",
            "allowUnconfined": True,
        },
    },
    {
        "name": "judge",
        "http": {
            "url": "http://judge/score",
            "credentialsSecretRef": {"name": "judge"},
            "timeoutSeconds": 6,
            "retries": 1,
            "batchSize": 2,
            "concurrency": 8,
            "pauseSeconds": 90,
        },
    },
    {"name": "model", "model": {"uri": "hf://o/judge", "revision": "main"}},
]


def grpo_job() -> FineTuneJob:
    grpo = {**EVERY_GRPO_FIELD, "rewards": EVERY_REWARD}
    return job(method={"type": "GRPO", "grpo": grpo})


def test_every_field_of_grpo_arrives() -> None:
    recipe = config(grpo_job())["recipe"]
    assert recipe["method"] == "GRPO"
    made = recipe["grpo"]
    assert made.pop("sampling") == {
        "maxTokens": 32,
        "temperature": 0.7,
        "topP": 0.9,
        "topK": 40,
        "stop": ["###"],
    }
    made.pop("rewards")
    asked = {k: v for k, v in EVERY_GRPO_FIELD.items() if k != "rollout"}
    assert made == {**asked, "clipHigh": 3.5, "beta": 0.04}


def test_the_lower_clip_arrives() -> None:
    grpo = {"clipLow": "0.1", "rewards": EVERY_REWARD[:1]}
    recipe = config(job(method={"type": "GRPO", "grpo": grpo}))["recipe"]
    assert recipe["grpo"]["clipLow"] == 0.1


def test_every_field_of_every_reward_arrives() -> None:
    made = {r["name"]: r for r in config(grpo_job())["recipe"]["grpo"]["rewards"]}
    usual = {"weight": 1.0, "onError": "Mask", "failAfter": 100}
    wanted = {r["name"]: {**usual, **r} for r in EVERY_REWARD}
    wanted["math"] |= {"weight": 0.5, "gate": 0.25}
    wanted["mine"]["python"] = {
        "configMap": "code",
        "key": "score.py",
        "function": "judge",
        "timeoutSeconds": 5.0,
        "memoryBytes": 512 * 2**20,
        "allowUnconfined": True,
    }
    told = {k: v for k, v in EVERY_REWARD[12]["http"].items() if k != "credentialsSecretRef"}
    wanted["judge"]["http"] = told
    assert made == wanted
    assert list(made) == [r["name"] for r in EVERY_REWARD], "in their order"


def test_where_completions_are_drawn_and_scored_is_the_layout() -> None:
    mounts = Mounts(
        rollout_credentials="/c/rollout",
        reward_credentials={"judge": "/c/judge"},
        reward_socket="/run/socket",
        reward_sources={"mine": "/code/mine.py"},
    )
    layout = config(grpo_job(), mounts=mounts)["layout"]
    assert layout["rollout"] == {
        "engine": "OpenAI",
        "uri": "http://vllm:8000",
        "adapterDirectory": "/adapters",
    }
    assert layout["rewardRunner"] == {
        "socket": "/run/socket",
        "sources": {"mine": "/code/mine.py"},
    }
    assert layout["credentials"] == {"rollout": "/c/rollout", "rewards": {"judge": "/c/judge"}}


def test_the_builtin_engine_and_a_runner_of_its_own_are_not_told() -> None:
    layout = config(job(method={"type": "GRPO", "grpo": {"rewards": EVERY_REWARD[:1]}}))["layout"]
    assert not {"rollout", "rewardRunner"} & layout.keys()
    assert layout["credentials"] == {}


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
    code = "import sys, finetune_operator.plan.run_config; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert not heavy & set(loaded.split())
