"""The FineTuneJob of the operator's tests, as the API server would be given it."""

from __future__ import annotations

from typing import Any

from finetune_api.job import KIND


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
