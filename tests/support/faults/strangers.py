"""Rows: what strangers and tenants forge, plant, and write by hand."""

from __future__ import annotations

import copy
import json
import os
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

from finetune_api.job import KIND
from finetune_contract.progress import ANNOTATION
from finetune_contract.runconfig import DIGEST_VARIABLE
from finetune_trainer.process.runconfig import read_run_config
from support.faults.day import Day
from support.faults.ends import ends, raised
from support.faults.table import Fault, Strike
from support.operator.model.trainers import artifact

Json = Any
NESTED = "[" * 4000
MARKS = {
    "app.kubernetes.io/managed-by": "finetune-operator",
    "finetune.dev/job": "bot",
    "finetune.dev/attempt": "1",
}
ELSEWHERE = {"phase": "Train", "done": 9_999, "step": 9_999}


def labels(day: Day, kind: str = "Lease") -> Json:
    """Return the labels of the job's own object, which anyone may write."""
    return copy.deepcopy(day.world.objects[kind, "bot-a1"]["metadata"]["labels"])


def owner(kind: str, name: str) -> Json:
    """Return a reference to someone else, who is there."""
    return {"kind": kind, "name": name, "uid": "uid-of-another", "controller": True}


def relabels_its_lease(day: Day) -> None:
    metadata = {
        "name": "other-a1",
        "labels": labels(day),
        "annotations": {ANNOTATION: json.dumps(ELSEWHERE)},
        "ownerReferences": [owner(KIND, "other")],
    }
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata}
    day.world.add({**lease, "spec": {"renewTime": day.world.stamp()}})


def forges(text: str, renewed: str) -> Strike:
    """Write over what the trainer reports, whenever it does."""

    def strike(day: Day) -> None:
        known = copy.deepcopy(day.world.objects["Lease", "bot-a1"]["metadata"])
        known["annotations"][ANNOTATION] = text
        day.world.forged = {"metadata": known, "spec": {"renewTime": renewed}}

    return strike


def succeeds_in_its_stead(day: Day) -> None:
    told = {"attempt": 1, "outcome": "Succeeded", "reason": "Succeeded"}
    told["artifact"] = artifact(day.world.job()["metadata"]["uid"], 1)
    end = {"exitCode": 0, "message": json.dumps(told)}
    day.world.add(
        {
            **pod("bot-a1-worker-7", labels(day)),
            "status": {
                "phase": "Succeeded",
                "containerStatuses": [{"name": "pytorch", "state": {"terminated": end}}],
            },
        }
    )


def pod(name: str, marks: Json) -> Json:
    owners = [owner("ReplicaSet", "web")]
    metadata = {"name": name, "labels": marks, "ownerReferences": owners}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata}


def has_the_name_of_a_pod(day: Day) -> None:
    day.world.add({**pod("bot-a1-worker-0", MARKS), "status": {"phase": "Running"}})


def leaves(kind: str, name: str) -> Strike:
    return lambda day: day.world.drop(kind, name)


def plants(owners: Json) -> Strike:
    """Put a ConfigMap where the attempt's is to be, with another bucket in it."""

    def strike(day: Day) -> None:
        uid = day.world.job()["metadata"]["uid"]
        metadata = {
            "name": "bot-a1",
            "labels": MARKS,
            "ownerReferences": [{**owner, "uid": uid} for owner in owners],
        }
        told = {"run-config.json": "of another bucket"}
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": told}
        day.world.add(body)
        day.once(day.trains, lambda: put_right(day))

    return strike


def put_right(day: Day) -> None:
    assert "of another bucket" not in str(day.world.objects["ConfigMap", "bot-a1"])


def tells(message: Json, code: int = 1) -> Strike:
    """End rank 0 with a termination message that its trainer did not write."""

    def strike(day: Day) -> None:
        text = message if isinstance(message, str) else json.dumps(message)
        day.world.end_with(day.pod(0), {"exitCode": code, "message": text})

    return strike


def another_bucket() -> Json:
    stolen = {"uri": "s3://elsewhere/a", "digest": "sha256:0", "bytes": 1}
    return {"attempt": 1, "outcome": "Succeeded", "reason": "Succeeded", "artifact": stolen}


def changed_config() -> Exception:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "run-config.json")
        path.write_text("{}")
        with patch.dict(os.environ, {DIGEST_VARIABLE: "sha256:0"}):
            return raised(lambda: read_run_config(path))


def edits_status(day: Day) -> None:
    told: Json = {
        "attempts": [{"number": 1, "state": NESTED}],
        "conditions": [],
        "progress": "\x1b",
    }
    day.world.edits.append(told)
    day.world.store({**copy.deepcopy(day.world.job()), "status": told})


OWN = [{"kind": KIND, "name": "bot", "controller": True}]
FAULTS = [
    Fault("another job's Lease gets this job's labels", relabels_its_lease, harmless=True),
    Fault("a Lease that holds 4,000 `[`", forges(NESTED, ""), harmless=True),
    Fault("a Lease of the year 0", forges("{}", "0000-01-01T00:00:00Z"), harmless=True),
    Fault("a stranger's pod has the job's labels", succeeds_in_its_stead, harmless=True),
    Fault(
        "a stranger's pod has the name of one of the job's",
        has_the_name_of_a_pod,
        before=True,
        mend=leaves("Pod", "bot-a1-worker-0"),
    ),
    Fault(
        "a ConfigMap is planted under the attempt's name",
        plants([]),
        before=True,
        mend=leaves("ConfigMap", "bot-a1"),
    ),
    Fault("… that names the job as its owner", plants(OWN), before=True, harmless=True),
    Fault("someone changes the attempt's ConfigMap", ends(changed_config()), before=True),
    Fault("a Result that holds 4,000 `[`", tells(NESTED)),
    Fault("a Result that tells of another bucket", tells(another_bucket(), code=0)),
    Fault("someone writes nonsense over `status`", edits_status, harmless=True),
]
