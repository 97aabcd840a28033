"""What a trainer tells, read by an operator that is older than it."""

from __future__ import annotations

import json
from typing import Any

from finetune_contract.progress import Phase, Progress
from finetune_contract.result import Result, decode

PLAN = {
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
    read = Progress.model_validate_json(json.dumps(newer(told)))
    assert read == Progress.model_validate(told)
    assert (read.phase, read.step, read.rewards[0].mean) == (Phase.TRAIN, 5, 0.5)


def test_a_result_of_a_newer_trainer_is_read() -> None:
    told = {"attempt": 1, "outcome": "Succeeded", "reason": "Succeeded", "plan": PLAN}
    told |= {"artifact": {"uri": "s3://b", "digest": "d", "bytes": 1}, "checkpoint": CHECKPOINT}
    assert decode(json.dumps(newer(told))) == Result.model_validate(told)


def test_a_column_says_where_the_run_is() -> None:
    assert Progress(phase=Phase.ROLLOUT, done=3, total=8).summary() == "Rollout 3/8"
    assert Progress(phase=Phase.PUBLISH, done=1, total=4).summary() == "Publish 25%"
    assert Progress(phase=Phase.LOAD).summary() == "Load"
