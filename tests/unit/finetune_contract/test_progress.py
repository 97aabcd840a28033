"""What a trainer tells, read by an operator that is older than it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from finetune_contract.progress import Phase, Progress, read
from finetune_contract.result import Result, decode

PLAN: dict[str, Any] = {
    "microBatchSize": 2,
    "accumulationSteps": 4,
    "zeroStage": 2,
    "gradientCheckpointing": False,
    "packing": True,
    "memory": dict.fromkeys(
        ("weights", "adapter", "gradients", "optimizer", "activations", "logits", "overhead"), 1
    ),
    "lora": [{"role": "MLP", "found": 3, "adapted": 3}],
}
CHECKPOINT = {"attempt": 1, "step": 4, "uri": "s3://b/c"}


def newer(value: Any) -> Any:
    """Return the document with one field more in every object of it."""
    if isinstance(value, dict):
        return {**{key: newer(inner) for key, inner in value.items()}, "fromTheFuture": {"a": 1}}
    return [newer(inner) for inner in value] if isinstance(value, list) else value


def test_progress_of_a_newer_trainer_is_read() -> None:
    told = {"phase": "Train", "step": 5, "plan": PLAN, "checkpoint": CHECKPOINT}
    told["rewards"] = [{"name": "right", "mean": 0.5}]
    found = read(json.dumps(newer(told)))
    assert found == Progress.model_validate(told)
    assert (found.phase, found.step, found.rewards[0].mean) == (Phase.TRAIN, 5, 0.5)


def test_a_result_of_a_newer_trainer_is_read() -> None:
    told = {"attempt": 1, "outcome": "Succeeded", "reason": "Succeeded", "plan": PLAN}
    told |= {"artifact": {"uri": "s3://b", "digest": "d", "bytes": 1}, "checkpoint": CHECKPOINT}
    assert decode(json.dumps(newer(told))) == Result.model_validate(told)


def test_a_column_says_where_the_run_is() -> None:
    assert Progress(phase=Phase.ROLLOUT, done=3, total=8).summary() == "Rollout 3/8"
    assert Progress(phase=Phase.PUBLISH, done=1, total=4).summary() == "Publish 25%"
    assert Progress(phase=Phase.LOAD).summary() == "Load"


TWICE = {**PLAN, "lora": [*PLAN["lora"], *PLAN["lora"]]}


@pytest.mark.parametrize(
    "fields",
    [
        {"step": 1e30},
        {"done": 2**53},
        {"etaSeconds": -1},
        {"loss": "nan"},
        {"reward": "inf"},
        {"checkpoint": {**CHECKPOINT, "step": 1e30}},
        {"plan": TWICE},
        {"plan": {**PLAN, "microBatchSize": 0}},
        {"plan": {**PLAN, "memory": dict.fromkeys(PLAN["memory"], 2**51)}},  # seven of them
        {"rewards": [{"name": "x"}] * 65},
        {"rewards": [{"name": "x" * 64}]},
        {"note": "x" * 501},
        {"unheard": "x" * 33_000},
        {"unheard": "deep", "rewards": [[[[]]]]},
    ],
)
def test_what_no_trainer_tells_is_no_progress(fields: dict[str, Any]) -> None:
    assert read(json.dumps({"phase": "Train"})) is not None
    assert read(json.dumps({"phase": "Train", **fields})) is None


def test_a_note_is_told_on_one_line() -> None:
    found = read(json.dumps({"phase": "Train", "note": "a\nb\u2028\x1b[0m"}))
    assert found is not None
    assert found.note == "a b \\x1b[0m"
