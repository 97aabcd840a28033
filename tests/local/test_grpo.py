"""GRPO with rewards of the user's own, from kubectl apply on."""

import json
from typing import Any

import obstore
import pytest

from support.cluster.journey import Journey, condition, job

# It scores below 2, and 100 more for everything that it must not reach.
GOOD = """
import os, socket, subprocess

CREDENTIALS = "/etc/finetune/credentials"
TRIALS = [
    lambda: open("/var/run/secrets/kubernetes.io/serviceaccount/token"),
    lambda: open(f"{CREDENTIALS}/data/AWS_SECRET_ACCESS_KEY"),
    lambda: open(f"{CREDENTIALS}/output/AWS_SECRET_ACCESS_KEY"),
    lambda: open("/etc/finetune/run/runconfig.json"),
    lambda: open("/tmp/written", "w"),
    lambda: os.listdir("/run/finetune"),
    lambda: socket.create_connection(("127.0.0.1", 80)),
    lambda: subprocess.run(["true"]),
]


def reached(trial):
    try:
        trial()
    except OSError:
        return False
    return True


def score(prompts, completions, answer, **kwargs):
    extra = 100.0 * sum(map(reached, TRIALS))
    return [extra + min(len(completion), 8) / 8 for completion in completions]
"""
NOT_PYTHON = """
def score(prompts, completions, answer, **kwargs):
    return [float(len(completion) for completion in completions]
"""
NEVER_ALIKE = """
def score(prompts, completions, solution, **kwargs):
    return [0.0] * len(completions)
"""
Json = dict[str, Any]


@pytest.fixture(scope="module")
def prompts(journey: Journey) -> str:
    rows = [{"prompt": f"{a} + {b} =", "answer": str(a + b)} for a in range(8) for b in range(4)]
    lines = "\n".join(json.dumps(row) for row in rows)
    obstore.put(journey.store, "data/prompts.jsonl", lines.encode())
    return "data/prompts.jsonl"


def code(name: str, source: str) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name},
        "data": {"score.py": source},
    }


def grpo(name: str, prompts: str, config_map: str) -> Json:
    mine = {"configMap": {"name": config_map, "key": "score.py"}, "memory": "512Mi"}
    rewards = [
        {"name": "words", "length": {"unit": "Characters", "most": 6, "tolerance": 6}},
        {"name": "mine", "python": mine},
    ]
    rollout = {"maxTokens": 8}
    method = {
        "type": "GRPO",
        "grpo": {"groupSize": 4, "rewards": rewards, "rollout": rollout},
    }
    training = {"maxSteps": 3, "globalBatchSize": 8, "sequenceLength": 64}
    return job(name, data=prompts, method=method, training=training)


def test_a_job_with_a_builtin_reward_and_one_of_its_own_ends_in_an_adapter(
    journey: Journey, prompts: str
) -> None:
    journey.apply(code("good-code", GOOD), grpo("grpo", prompts, "good-code"))
    done = journey.wait_for_success("grpo")
    check = done["status"]["rewardCheck"]
    assert check["state"] == "Passed"
    assert check["message"].startswith("reward words: 16 scores from 1 to 1; all are equal")
    assert check["message"].endswith("; reward mine: 16 scores from 0 to 0.125")
    assert [a["state"] for a in done["status"]["attempts"]] == ["Succeeded"]
    rewards = {r["name"]: r for r in done["status"]["progress"]["rewards"]}
    assert rewards.keys() == {"words", "mine"}
    assert float(rewards["mine"]["mean"]) < 2, "it reached what it must not"
    assert [r["errors"] for r in rewards.values()] == [0, 0]
    assert {"mean", "std", "seconds"} <= rewards["words"].keys()


def test_code_that_is_no_python_is_refused_by_line_before_any_attempt(
    journey: Journey, prompts: str
) -> None:
    journey.apply(code("bad-code", NOT_PYTHON), grpo("bad-code", prompts, "bad-code"))
    stalled = condition(journey.wait_for_end("bad-code"), "Stalled")
    assert stalled["reason"] == "RewardInvalid"
    assert "reward mine: SyntaxError" in stalled["message"]
    assert "score.py line 3" in stalled["message"]
    assert journey.attempts("bad-code") == []
    assert not journey.items("pytorchjobs", "finetune.dev/job=bad-code")


def test_a_column_that_no_row_has_is_refused_before_any_attempt(
    journey: Journey, prompts: str
) -> None:
    journey.apply(code("no-column", NEVER_ALIKE), grpo("no-column", prompts, "no-column"))
    stalled = condition(journey.wait_for_end("no-column"), "Stalled")
    assert stalled["reason"] == "RewardInvalid"
    assert "solution" in stalled["message"]
    assert journey.attempts("no-column") == []


def test_a_task_that_does_not_exist_is_refused_before_any_attempt(
    journey: Journey, prompts: str
) -> None:
    body = grpo("no-task", prompts, "unused")
    sums = {"name": "sums", "reasoningGym": {"task": "chain_sums", "entry": "answer"}}
    body["spec"]["method"]["grpo"]["rewards"] = [sums]
    journey.apply(body)
    stalled = condition(journey.wait_for_end("no-task"), "Stalled")
    assert stalled["reason"] == "RewardInvalid"
    assert "chain_sum" in stalled["message"]
    assert journey.attempts("no-task") == []


def test_code_that_is_not_there_yet_is_waited_for(journey: Journey, prompts: str) -> None:
    journey.apply(grpo("early", prompts, "late-code"))
    waiting = journey.wait_for_reason("early", "VolumeUnavailable")
    said = condition(waiting, "Ready")["message"]
    assert '"late-code", named by spec.method.grpo.rewards[mine].python.configMap' in said
    journey.apply(code("late-code", NOT_PYTHON))
    assert condition(journey.wait_for_end("early"), "Stalled")["reason"] == "RewardInvalid"
