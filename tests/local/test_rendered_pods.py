"""Trainer and reward runner, each started from exactly the pod that the operator plans.

The operator itself is started so by every test of tests/kube.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

from finetune_contract.result import Outcome, decode
from finetune_local.images import REPOSITORY
from finetune_operator.plan.attempt import attempt_objects
from finetune_operator.plan.backends import BACKEND
from finetune_rewards.runner.client import RunnerClient
from support.containers.rendered import start
from support.models.tiny_llama import sums, write_model, write_rows
from support.operator.values import attempt, job
from support.rewards.runners import samples

IMAGE = f"{REPOSITORY}trainer:dev"
WHO = """
import os

def score(completions, **kwargs):
    return [float(os.getuid())] * len(completions)
"""
Json = Any


def planned(**spec: Json) -> tuple[Json, dict[str, str]]:
    """Return the template of a job's pods, and what is in the ConfigMap that they mount."""
    objects = attempt_objects(job(**spec), attempt(image=IMAGE), BACKEND, 15)
    (workload,) = objects.started
    (documents,) = (one["data"] for one in objects.prepared if one["kind"] == "ConfigMap")
    return workload["spec"]["pytorchReplicaSpecs"]["Master"]["template"], documents


def test_the_trainer_trains(tmp_path: Path) -> None:
    claim = {"name": "data", "persistentVolumeClaim": {"claimName": "data"}, "mountPath": "/data"}
    template, documents = planned(
        model={"uri": "file:///data/model"},
        data={"train": [{"uri": "file:///data/train.jsonl"}]},
        output={"uri": "file:///data/out"},
        training={"maxSteps": 1, "globalBatchSize": 2, "sequenceLength": 128, "precision": "FP32"},
        workers={"volumes": [claim]},
    )
    data = tmp_path / "volumes" / "user-data"
    write_model(data / "model")
    write_rows(data / "train.jsonl", sums(4))
    with (tmp_path / "log").open("wb") as log:
        files = {"run-config": documents}
        trainer = start(template, "pytorch", tmp_path, log=log, files=files)
    code = trainer.process.wait(120)
    result = decode(trainer.message)
    assert result is not None, (tmp_path / "log").read_text()
    assert (code, result.outcome) == (0, Outcome.SUCCEEDED), result
    assert list((data / "out").glob("runs/*/a1/*/artifact/manifest.json"))


async def test_the_reward_runner_scores_and_ends_when_it_is_told_to(tmp_path: Path) -> None:
    source = {"configMap": {"name": "code", "key": "score.py"}}
    rewards = [
        {"name": "mine", "python": source},
        {"name": "right", "math": {}},
    ]
    template, documents = planned(method={"type": "GRPO", "grpo": {"rewards": rewards}})
    files = {"run-config": documents, "reward-mine-source": {"mine.py": WHO}}
    with (tmp_path / "log").open("wb") as log:
        runner = start(template, "rewards", tmp_path, log=log, files=files)
    try:
        client = RunnerClient(runner.volume("rewards-socket") / "socket")
        answers = await client.score(samples("4", answer="4"))
        assert {name: one.items[0].score for name, one in answers.items()} == {
            "mine": 65532,
            "right": 1,
        }, (tmp_path / "log").read_text()
        runner.first.send_signal(signal.SIGTERM)
        assert runner.process.wait(30) == 0
    finally:
        runner.process.kill()
