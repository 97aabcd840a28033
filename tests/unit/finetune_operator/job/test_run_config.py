"""The RunConfig says what the job says, and nothing of a cluster that is not there."""

import subprocess
import sys

import pytest

from finetune_contract.layout import Checkpointing, Credentials, Offload, RewardRunner
from finetune_operator.job.errors import Stalled
from finetune_operator.job.footprint import Footprint
from finetune_operator.job.run_config import Mounts
from support.operator.jobs import config, job


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
            runPolicy={"terminationGracePeriodSeconds": 60, "stallTimeoutSeconds": 900},
        ),
        mounts=Mounts(
            Credentials(model="/c/m", data="/c/d", output="/c/o", tracking="/c/t"),
            "/cache",
            "/scratch",
        ),
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
        "stallTimeoutSeconds": 900.0,
        "graceSeconds": 60.0,
    }


def test_what_is_left_to_the_trainer_is_not_told() -> None:
    made = config(job(memory={"zeroStage": "Auto"}, tracking={"type": "TensorBoard"}))
    assert "microBatchSize" not in made["layout"]
    assert "zeroStage" not in made["layout"]
    assert made["layout"]["tracking"] == {"type": "TensorBoard", "project": "team"}


def test_an_attempt_may_take_less_memory_than_the_job_asks_for() -> None:
    less = Footprint(2, Checkpointing.ALWAYS, (Offload.OPTIMIZER,))
    layout = config(job(), footprint=less)["layout"]
    assert layout["microBatchSize"] == 2
    assert layout["gradientCheckpointing"] == "Always"
    assert layout["offload"] == ["Optimizer"]


def test_without_a_cluster_there_is_no_lease_to_renew() -> None:
    assert "heartbeat" not in config(job(), heartbeat_seconds=None)["layout"]


def test_where_completions_are_drawn_and_scored_is_the_layout() -> None:
    rollout = {"engine": "OpenAI", "uri": "http://vllm:8000", "adapterDirectory": "/adapters"}
    rewards = [{"name": "math", "math": {}}]
    grpo = {"rollout": rollout, "rewards": rewards}
    mounts = Mounts(
        Credentials(rollout="/c/rollout", rewards={"judge": "/c/judge"}),
        reward_runner=RewardRunner(socket="/run/socket", sources={"mine": "/code/mine.py"}),
    )
    layout = config(job(method={"type": "GRPO", "grpo": grpo}), mounts=mounts)["layout"]
    assert layout["rollout"] == rollout
    assert layout["rewardRunner"] == {
        "socket": "/run/socket",
        "sources": {"mine": "/code/mine.py"},
    }
    assert layout["credentials"] == {"rollout": "/c/rollout", "rewards": {"judge": "/c/judge"}}


def test_the_builtin_engine_and_a_runner_of_its_own_are_not_told() -> None:
    rewards = [{"name": "math", "math": {}}]
    layout = config(job(method={"type": "GRPO", "grpo": {"rewards": rewards}}))["layout"]
    assert not {"rollout", "rewardRunner"} & layout.keys()
    assert layout["credentials"] == {}


def test_a_micro_batch_that_does_not_divide_the_batch_is_refused() -> None:
    with pytest.raises(Stalled, match=r"InvalidSpec.*not a multiple of"):
        config(job(training={"globalBatchSize": 4}), footprint=Footprint(3, Checkpointing.AUTO, ()))


def test_the_builder_imports_neither_kopf_nor_a_client_nor_torch() -> None:
    heavy = {"kopf", "kubernetes", "aiohttp", "torch"}
    code = "import sys, finetune_operator.job.run_config; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert not heavy & set(loaded.split())
