"""Jobs of the operator's tests, and what a RunConfig tells of them."""

from __future__ import annotations

from typing import Any

from finetune_api.job import KIND, FineTuneJob
from finetune_api.validation import parse
from finetune_contract.runconfig import RunConfig
from finetune_operator.job.footprint import Footprint
from finetune_operator.job.run_config import Mounts, run_config


def bot_job(**spec: Any) -> dict[str, Any]:
    """Return the job `team/bot`; stanzas of the spec are replaced or added by name."""
    return {
        "apiVersion": "finetune.dev/v1alpha1",
        "kind": KIND,
        "metadata": {"name": "bot", "namespace": "team", "generation": 1},
        "spec": {
            "model": {"uri": "hf://o/m"},
            "data": {"train": [{"uri": "s3://d/a.jsonl"}]},
            "output": {"uri": "s3://adapters/bot"},
            **spec,
        },
    }


def body(**spec: Any) -> dict[str, Any]:
    """Return a job of the least spec with these fields, as a user writes it."""
    return {
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


def job(**spec: Any) -> FineTuneJob:
    """Return the job of such a body."""
    return parse(body(**spec))


def config(of: FineTuneJob, **changes: Any) -> Any:
    """Return what the trainer reads of attempt 2's RunConfig, defaults included."""
    arguments: dict[str, Any] = {
        "attempt": 2,
        "uid": "u-1",
        "image": "trainer:1",
        "footprint": Footprint.asked(of.spec),
        "heartbeat_seconds": 15.0,
        "mounts": Mounts(),
    }
    told = run_config(of, **{**arguments, **changes}).to_json()
    understood = RunConfig.model_validate_json(told)
    return understood.model_dump(mode="json", by_alias=True, exclude_none=True)
