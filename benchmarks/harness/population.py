"""Jobs that run already, each with its seven children and its two pods, as a server stores them."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from finetune_api.crd import schema
from finetune_api.job import FineTuneJob
from finetune_api.status import FineTuneJobStatus
from finetune_api.validation import parse
from finetune_contract.progress import ANNOTATION
from finetune_operator.job.names import MANAGER, Object
from finetune_operator.job.resources import LEASE, POD, resources
from finetune_operator.job.times import rfc3339
from finetune_operator.judge.decide import decide
from finetune_operator.judge.status import status_of
from finetune_operator.observe.observe import observe
from finetune_operator.observe.observed import Observed
from finetune_operator.plan.attempt import attempt_objects
from finetune_operator.plan.backends import BACKEND
from finetune_operator.settings import Settings
from kube_schema.structural import apply_defaults
from support.operator.jobs import bot_job

NAMESPACE = "team"
IMAGE = "trainer:1"
_RESOURCES = resources(BACKEND.kinds)
_SETTINGS = Settings(trainer_image=IMAGE)
_LAST_HANDLED = "kopf.zalando.org/last-handled-configuration"


def job(name: str) -> Object:
    """Return a job of two workers, with its defaults."""
    body = bot_job(workers={"replicas": 2}, output={"uri": "s3://adapters/bot"})
    apply_defaults(schema(), body)
    return {**body, "metadata": {"name": name, "namespace": NAMESPACE}}


def population(count: int) -> Iterator[tuple[str, str, bytes]]:
    """Yield plural, name and JSON of every object of so many running jobs.

    They differ in names, uids and what follows from these; the operator writes to those that are
    not as it would have left them, so that a wrong one shows.
    """
    first, now = parse(job(_name(0))), datetime.now(UTC)
    body = _stored(job(_name(0)), 0)
    first.metadata.update(body["metadata"])
    status = json.dumps(_status(first, now))
    for number in range(count):
        body = _stored(job(_name(number)), number)
        essence = {"spec": body["spec"]}  # by which Kopf knows what it has handled
        body["metadata"]["annotations"] = {_LAST_HANDLED: json.dumps(essence) + "\n"}
        body["status"] = json.loads(_renamed(status, number))
        one = first.model_copy(update={"metadata": body["metadata"]})
        one = one.model_copy(update={"status": FineTuneJobStatus.model_validate(body["status"])})
        for item in (body, *_children(one, number, now)):
            name = item["metadata"]["name"]
            yield _RESOURCES[item["kind"]].plural, name, json.dumps(item).encode()


def _name(number: int) -> str:
    return f"job-{number:05}"


def _uid(number: int, place: int = 0) -> str:
    return f"{number:08x}-4000-8000-a000-{place:012x}"


def _renamed(text: str, number: int) -> str:
    return text.replace(_name(0), _name(number)).replace(_uid(0)[:9], _uid(number)[:9])


def _status(of: FineTuneJob, now: datetime) -> Object:
    """Return the status of a job whose pods run, as the operator leaves it."""
    (attempt,) = decide(of, Observed(), now, _SETTINGS, BACKEND, None).attempts
    of = of.model_copy(update={"status": FineTuneJobStatus(attempts=[attempt])})
    *_, workload, _, _ = _children(of, 0, now)
    begun = attempt.model_copy(update={"workload_uid": workload["metadata"]["uid"]})
    of = of.model_copy(update={"status": FineTuneJobStatus(attempts=[begun])})
    for _ in range(3):
        seen = observe(of, _children(of, 0, now), (), BACKEND)
        decision = decide(of, seen, now, _SETTINGS, BACKEND, None)
        status = status_of(of, seen, decision, now, _SETTINGS)
        of = of.model_copy(update={"status": status})
    return status.model_dump(mode="json", by_alias=True, exclude_none=True)


def _children(of: FineTuneJob, number: int, now: datetime) -> list[Object]:
    attempts = of.status.attempts if of.status else None
    assert attempts
    heartbeat = _SETTINGS.heartbeat_seconds
    planned = attempt_objects(of, attempts[-1], BACKEND, heartbeat)
    bodies = [*planned.prepared, *planned.bound, *planned.started]
    made = [_stored(body, number, place) for place, body in enumerate(bodies, start=1)]
    for body in made:
        if body["kind"] == LEASE:
            told = {"phase": "Train", "done": 120, "total": 1000, "step": 120, "loss": 1.25}
            body["metadata"]["annotations"][ANNOTATION] = json.dumps(told)
            body["spec"] = {"renewTime": rfc3339(now)}
    pods = (_pod(made[-1], role, rfc3339(now)) for role in ("Master", "Worker"))
    return made + [_stored(p, number, len(made) + i) for i, p in enumerate(pods, start=1)]


def _stored(body: Object, number: int, place: int = 0) -> Object:
    """Return an object with what a server adds to it."""
    body = copy.deepcopy(body)
    managed = {
        "manager": MANAGER,
        "operation": "Update",
        "apiVersion": body["apiVersion"],
        "time": "2026-01-01T00:00:00Z",
        "fieldsType": "FieldsV1",
        "fieldsV1": {f"f:{k}": _fields(v) for k, v in body.items() if k not in ("kind",)},
    }
    body["metadata"] |= {
        "uid": _uid(number, place),
        "resourceVersion": str(1 + 16 * number + place),
        "generation": 1,
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "managedFields": [managed],
    }
    return body


def _fields(value: Any) -> Object:
    return {f"f:{k}": _fields(v) for k, v in value.items()} if isinstance(value, dict) else {}


def _pod(workload: Object, role: str, since: str) -> Object:
    """Return a running pod as its controller, the scheduler and a kubelet leave it."""
    template = copy.deepcopy(workload["spec"]["pytorchReplicaSpecs"][role]["template"])
    metadata, spec = template["metadata"], template["spec"]
    owner = {"apiVersion": workload["apiVersion"], "kind": workload["kind"], "controller": True}
    owner |= {part: workload["metadata"][part] for part in ("name", "uid")}
    metadata |= {
        "name": f"{workload['metadata']['name']}-{role.lower()}-0",
        "namespace": NAMESPACE,
        "ownerReferences": [owner],
    }
    ready = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
    container = {
        "name": spec["containers"][0]["name"],
        "image": IMAGE,
        "imageID": f"registry/trainer@sha256:{64 * 'a'}",
        "containerID": f"containerd://{64 * 'b'}",
        "ready": True,
        "restartCount": 0,
        "started": True,
        "state": {"running": {"startedAt": since}},
        "lastState": {},
    }
    status = {
        "phase": "Running",
        "conditions": [{"type": t, "status": "True", "lastTransitionTime": since} for t in ready],
        "hostIP": "10.0.0.1",
        "podIPs": [{"ip": "10.1.0.1"}],
        "startTime": since,
        "qosClass": "Burstable",
        "containerStatuses": [container],
    }
    spec |= {"nodeName": "node-1", "schedulerName": "default-scheduler", "priority": 0}
    return {"apiVersion": "v1", "kind": POD, "metadata": metadata, "spec": spec, "status": status}
