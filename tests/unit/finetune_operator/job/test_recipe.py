"""The recipe of a job is what its spec says, field by field of the same name."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune_api.crd import schema
from finetune_api.validation import parse
from finetune_api.yaml_text import load_documents
from finetune_operator.job.run_config import recipe
from kube_schema.structural import apply_defaults
from support.operator.jobs import body

GOOD = sorted((Path(__file__).parents[3] / "jobs" / "good").glob("*.yaml"))
# Together they set every field of the recipe to something else than its default.
EVERY_FIELD: dict[str, Any] = {
    "model": {
        "uri": "hf://o/m",
        "revision": "abc",
        "initFrom": "s3://b/older",
        "chatTemplate": {"inline": "{{ messages }}"},
        "chatTemplateKwargs": {"enable_thinking": False, "effort": "low", "turns": 3},
    },
    "data": {
        "train": [
            {"uri": "s3://d/a.json", "format": "Messages", "fileFormat": "JSON", "weight": "0.5"},
            {"uri": "s3://d/b.jsonl"},
        ],
        "eval": [{"uri": "s3://d/e.csv", "format": "PromptCompletion", "fileFormat": "CSV"}],
        "onBadRow": "Skip",
        "columns": {"messages": "turns", "role": "who", "content": "said"},
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
    {"name": "math", "weight": "0.5", "gate": "0.25", "math": {"of": "Whole", "answer": "a"}},
    {
        "name": "exact",
        "onError": "FailAfter",
        "failAfter": 7,
        "exact": {"of": "Whole", "answer": "b", "pattern": "x(.*)", "ignoreCase": True},
    },
    {"name": "regex", "regex": {"of": "Answer", "pattern": "y+"}},
    {"name": "choice", "choice": {"of": "Whole", "answer": "c", "choices": "ABC"}},
    {"name": "tags", "tags": {"of": "Answer", "tags": ["think", "answer"]}},
    {"name": "json", "jsonSchema": {"of": "Whole", "definition": '{"type": "object"}'}},
    {
        "name": "length",
        "length": {"of": "Answer", "unit": "Characters", "least": 2, "most": 8, "tolerance": 3},
    },
    {"name": "language", "language": {"of": "Answer", "language": "de"}},
    {"name": "repetition", "repetition": {"of": "Answer", "ngram": 3}},
    {"name": "banned", "banned": {"of": "Answer", "phrases": ["never"], "ignoreCase": False}},
    {
        "name": "gym",
        "reasoningGym": {"of": "Whole", "task": "chain_sum", "entry": "e", "pattern": "z(.*)"},
    },
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
SAID: dict[str, Any] = {
    **{path.stem: load_documents(path.read_text())[0] for path in GOOD},
    "SFT": body(**EVERY_FIELD),
    "SFT, the others": body(
        lora={"dora": True},
        training={"epochs": 3},
        output={"uri": "s3://b/bot", "export": ["Adapter", "Merged"]},
    ),
    "GRPO": body(method={"type": "GRPO", "grpo": {**EVERY_GRPO_FIELD, "rewards": EVERY_REWARD}}),
    "GRPO, the others": body(
        method={
            "type": "GRPO",
            "grpo": {"clipLow": "0.1", "aggregate": "GDPO", "rewards": EVERY_REWARD[:1]},
        }
    ),
}


def told(job: dict[str, Any]) -> dict[str, Any]:
    return recipe(parse(job).spec).model_dump(mode="json", by_alias=True)


def same(ours: Any, theirs: Any) -> bool:
    """Tell whether a value is the spec's, and each of its fields that the spec has by this name."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return all(same(value, theirs[name]) for name, value in ours.items() if name in theirs)
    if isinstance(ours, list):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    return bool(ours == (float(theirs) if isinstance(ours, float) else theirs))


def fields(value: Any, path: str = "") -> Iterator[str]:
    """Yield the paths of a value and of all that it holds, such as `.data.train[].uri`."""
    yield path
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from fields(inner, f"{path}.{name}")
    elif isinstance(value, list):
        for inner in value:
            yield from fields(inner, f"{path}[]")


@pytest.mark.parametrize("name", SAID)
def test_a_field_carries_the_value_of_the_specs_field_of_its_name(name: str) -> None:
    stored = copy.deepcopy(SAID[name])
    apply_defaults(schema(), stored)
    spec, made = stored["spec"], told(stored)
    grpo = made.pop("grpo")
    assert made.pop("method") == spec["method"]["type"]
    assert made.pop("export") == spec["output"]["export"]
    assert same(made, spec)
    if grpo is None:
        assert "grpo" not in spec["method"]
        return
    for reward, asked in zip(grpo["rewards"], spec["method"]["grpo"]["rewards"], strict=True):
        if code := reward["python"]:
            asked["python"] |= asked["python"].pop("configMap")
            assert code.pop("configMap") == asked["python"].pop("name")
    assert same(grpo, spec["method"]["grpo"])
    assert same(grpo["sampling"], spec["method"]["grpo"]["rollout"])


def test_memory_is_told_in_bytes() -> None:
    (code,) = (r["python"] for r in told(SAID["GRPO"])["grpo"]["rewards"] if r["python"])
    assert code["memoryBytes"] == 512 * 2**20


def test_every_field_is_tried_with_another_value_than_its_default() -> None:
    known, tried = set[str](), set[str]()
    for job in SAID.values():
        made = recipe(parse(job).spec)
        known |= set(fields(made.model_dump(mode="json", by_alias=True)))
        tried |= set(fields(made.model_dump(mode="json", by_alias=True, exclude_defaults=True)))
    assert known - tried == {".training.optimizer"}, "the API has none"
