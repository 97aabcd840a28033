"""What others do to a World: objects that look like the job's, and a status written by hand."""

from __future__ import annotations

import json
from typing import Any

from finetune_api.job import KIND
from finetune_contract.progress import ANNOTATION
from finetune_operator.job.names import ATTEMPT_LABEL, JOB_LABEL, MANAGED_BY, MANAGER, UID_LABEL
from support.operator.model.store import copied
from support.operator.model.world import World

Json = Any
RBAC = "rbac.authorization.k8s.io/v1"
FORGED = {"uri": "s3://adapters/bot/forged", "digest": f"sha256:{'f' * 64}", "bytes": 1}
RESULT = {
    "attempt": 1,
    "outcome": "Succeeded",
    "reason": "Succeeded",
    "message": "forged",
    "step": 10**6,
    "artifact": FORGED,
    "checkpoint": {"attempt": 1, "step": 10**6, "uri": "s3://adapters/bot/forged"},
}
# What each kind says where a stranger wrote it, of a name that an attempt's objects have.
PLANTED: dict[str, tuple[str, Json]] = {
    "ConfigMap": ("v1", {"data": {"runconfig.json": "planted"}}),
    "Role": (RBAC, {"rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]}),
    "RoleBinding": (RBAC, {"roleRef": {"kind": "Role", "name": "planted"}}),
}
# And of the name that those have which all attempts share.
SHARED: dict[str, tuple[str, Json]] = {
    "ServiceAccount": ("v1", {"automountServiceAccountToken": True}),
    "NetworkPolicy": ("networking.k8s.io/v1", {"spec": {"podSelector": {}}}),
}
LEASE = ("coordination.k8s.io/v1", {"spec": {"renewTime": "2026-03-01T12:00:00Z"}})
KINDS = [*PLANTED, *SHARED, "Lease"]
OWNERS = ["nobody", "the job", "another"]
CUTS = [
    "attempts",
    "conditions",
    "checkpoint",
    "progress",
    "plan",
    "rewardCheck",
    "workloadUid",
    "podUids",
    "runningTime",
    "endTime",
    "resumedStep",
    "lastStep",
]


def plant(world: World, kind: str, attempt: int, owner: str) -> None:
    """Write an object of a name that the job uses, in place of what has it."""
    name = "bot-finetune" if kind in SHARED else f"bot-a{attempt}"
    version, content = ({**PLANTED, **SHARED}).get(kind, LEASE)
    metadata = {"name": name, "labels": _labels(world, attempt), "ownerReferences": []}
    if kind == "Lease" and owner != "the job":  # what the job's own says is the trainer's
        forged = {"phase": "Train", "done": 10**6, "step": 10**6}
        metadata["annotations"] = {ANNOTATION: json.dumps(forged)}
    metadata["ownerReferences"] = _owners(world, owner)
    if world.find(kind, name):
        world.drop(kind, name)
    world.add({"apiVersion": version, "kind": kind, "metadata": metadata, **content})


def plant_pod(world: World, name: str, attempt: int, well: bool) -> None:
    """Write a pod of the name of one of an attempt's, which says what its author likes."""
    if world.find("Pod", name):
        return
    code = 0 if well else 1
    message = json.dumps({**RESULT, "attempt": attempt} if well else {})
    ended = {"exitCode": code, "reason": "Completed", "message": message}
    ended["finishedAt"] = world.stamp()
    metadata = {"name": name, "labels": _labels(world, attempt)}
    metadata["ownerReferences"] = _owners(world, "another")
    containers = [{"name": world.backend.container, "state": {"terminated": ended}}]
    status = {"phase": "Succeeded" if well else "Failed", "containerStatuses": containers}
    world.add({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "status": status})


def relabel(world: World, kind: str, attempt: int, away: bool) -> None:
    """Take the labels of an object of the job's away, or give them back."""
    name = "bot-finetune" if kind in SHARED else f"bot-a{attempt}"
    if (known := world.find(kind, name)) is not None:
        body = copied(known)
        body["metadata"]["labels"] = {} if away else _labels(world, attempt)
        world.store(body)


def leave(world: World) -> None:
    """Take back what strangers wrote and the operator has not removed; labels stay as they are."""
    own = (KIND, world.backend.workload)
    for (kind, name), body in list(world.objects.items()):
        owners = body["metadata"].get("ownerReferences", [])
        if kind != KIND and not any(o["kind"] in own for o in owners):
            world.drop(kind, name)


def is_planted(body: Json | None) -> bool:
    """Tell whether an object says what a stranger wrote."""
    if body is None:
        return False
    _, content = ({**PLANTED, **SHARED}).get(body["kind"], LEASE)
    return all(body.get(part) == value for part, value in content.items())


def edit_status(world: World, what: str, index: int) -> None:
    """Write the status by hand: as it was once, without a part, or further than it is."""
    status = copied(world.job().get("status", {}))
    if what == "back":
        status = copied(world.statuses[index % len(world.statuses)]) if world.statuses else {}
    elif what == "cut":
        _cut(status, CUTS[index % len(CUTS)])
    elif what == "forward":
        _forward(status, index)
    world.edits.append(status)
    world.store({**world.job(), "metadata": {**world.job()["metadata"]}, "status": status})


def _cut(status: Json, part: str) -> None:
    status.pop(part, None)
    for attempt in status.get("attempts", [])[-1:]:
        attempt.pop(part, None)


def _forward(status: Json, index: int) -> None:
    attempts = status.get("attempts")
    match index % 4:
        case 0 if attempts:
            attempts[-1] |= {"state": "Failed", "reason": "PodLost", "message": "by hand"}
            attempts[-1].setdefault("endTime", attempts[-1]["startTime"])
        case 1 if attempts:
            attempts.append({**attempts[-1], "number": attempts[-1]["number"] + 1})
        case 2 if attempts:
            attempts[-1] |= {"workloadUid": "another", "podUids": ["another"]}
        case 3:
            status["checkpoint"] = RESULT["checkpoint"]


def _labels(world: World, attempt: int) -> Json:
    known = {MANAGED_BY: MANAGER, JOB_LABEL: "bot", ATTEMPT_LABEL: str(attempt)}
    return {**known, UID_LABEL: world.job()["metadata"]["uid"]}


def _owners(world: World, owner: str) -> Json:
    uid = world.job()["metadata"]["uid"]
    of_job = {"apiVersion": "finetune.dev/v1alpha1", "kind": KIND, "name": "bot", "uid": uid}
    other = {"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "uid-of-another"}
    return {"nobody": [], "the job": [{**of_job, "controller": True}]}.get(
        owner, [{**other, "controller": True}]
    )
