"""The RunConfig of a GRPO job: every field of its method and of every reward arrives."""

from __future__ import annotations

from typing import Any

from finetune_api.job import FineTuneJob
from finetune_operator.job.run_config import Mounts
from support.operator.jobs import config, job

EVERY_GRPO_FIELD: dict[str, Any] = {
    "groupSize": 4,
    "loss": "CISPO",
    "clipHigh": "3.5",
    "beta": "0.04",
    "scaleRewards": "Batch",
    "aggregate": "WeightedSum",
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


def test_what_suits_no_other_field_arrives() -> None:
    grpo = {"clipLow": "0.1", "aggregate": "GDPO", "rewards": EVERY_REWARD[:1]}
    recipe = config(job(method={"type": "GRPO", "grpo": grpo}))["recipe"]
    assert (recipe["grpo"]["clipLow"], recipe["grpo"]["aggregate"]) == (0.1, "GDPO")


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
