"""What `kubectl get ftj -o wide` prints of the cases' statuses."""

from typing import Any

import pytest

from finetune_api.crd import custom_resource_definition
from kube_emulator.apiserver.kinds.catalogue import Kind
from kube_emulator.apiserver.wire.tables import table
from support.operator.golden_cases import status

SHOWN: dict[str, dict[str, Any]] = {
    "trainer_told": {
        "Status": "Running",
        "Progress": "Evaluate 128/512",
        "Attempts": 1,
        "GPUs": 0,
        "Reward": None,
        "Loss": "0.1235",
        "Eval": "0.2000",
        "Saved": 40,
        "Artifact": None,
    },
    "trainer_notes": {"Progress": "Rollout 128/512", "Reward": "0.6124", "Loss": "-0.0123"},
    "access_denied_at_publish": {"Status": "Retrying", "Progress": "Publish 0%", "Saved": 40},
    "bad_data": {"Status": "DataInvalid", "Progress": None, "Saved": None},
    "gpus": {"Status": "Pending", "GPUs": 16},
    "success": {
        "Status": "Succeeded",
        "Artifact": "s3://adapters/bot/runs/5a5e0d3c-0000-4000-8000-000000000001/a1/artifact",
    },
    "resumed": {"Attempts": 2},
}


@pytest.mark.parametrize("case", SHOWN)
def test_columns(case: str) -> None:
    version = custom_resource_definition()["spec"]["versions"][0]
    kind = Kind("finetune.dev", "v1alpha1", "FineTuneJob", "finetunejobs", definition=version)
    body = {"metadata": {"name": "bot"}, "status": status(case)}
    printed = table(kind, [body], {}, "None")
    names = [column["name"] for column in printed["columnDefinitions"]]
    cells = dict(zip(names, printed["rows"][0]["cells"], strict=True))
    assert {name: cells[name] for name in SHOWN[case]} == SHOWN[case]
