"""An API server, training-operator, kubelets and garbage collector in memory, for the model tests.

Every actor moves only when it is told to, so a schedule decides who is late. Watch events wait in a
queue per kind until they are delivered. Requests can fail, lose their answer, or be the last thing
that the operator does before it dies.
"""

from __future__ import annotations

import copy
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from finetune_api.job import KIND
from finetune_operator.api import ApiError, Listing, Unreachable
from finetune_operator.backends.pytorchjob import PyTorchJob
from finetune_operator.plan.names import ATTEMPT_LABEL, JOB_LABEL
from finetune_operator.resources import CHILDREN

Json = Any
NAMESPACE = "team"
WORKLOAD = "PyTorchJob"
FINISHED = ("Succeeded", "Failed")


class Crash(BaseException):
    """The operator's process dies here."""


@dataclass
class Fault:
    """What befalls the n-th write from now: `before` or `after` it, a crash or only an error."""

    write: int
    after: bool
    crash: bool


@dataclass
class World:
    """The truth, and what the operator has not been told of yet."""

    now: datetime = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
    objects: dict[tuple[str, str], Json] = field(default_factory=dict)
    pending: dict[str, list[tuple[str, Json]]] = field(default_factory=lambda: defaultdict(list))
    told: dict[str, list[tuple[str, Json]]] = field(default_factory=lambda: defaultdict(list))
    unreachable: set[str] = field(default_factory=set)
    claim: tuple[int, str] | None = None  # attempt and run that may commit
    committed: list[int] = field(default_factory=list)
    writes: int = 0
    version: int = 0
    serial: int = 0

    def stamp(self) -> str:
        return self.now.strftime("%Y-%m-%dT%H:%M:%SZ")

    def store(self, body: Json) -> Json:
        """Put a new state in place and tell the watchers."""
        key = (body["kind"], body["metadata"]["name"])
        event = "MODIFIED" if key in self.objects else "ADDED"
        self.version += 1
        body["metadata"]["resourceVersion"] = str(self.version)
        self.objects[key] = body
        self.pending[body["kind"]].append((event, copy.deepcopy(body)))
        return copy.deepcopy(body)

    def add(self, body: Json) -> Json:
        self.serial += 1
        body = copy.deepcopy(body)
        body["metadata"]["uid"] = f"uid-{self.serial}"
        body["metadata"].setdefault("namespace", NAMESPACE)
        return self.store(body)

    def drop(self, kind: str, name: str) -> None:
        body = self.objects.pop((kind, name))
        self.version += 1
        body["metadata"]["resourceVersion"] = str(self.version)
        self.pending[kind].append(("DELETED", copy.deepcopy(body)))

    def all(self, kind: str) -> list[Json]:
        return [b for (k, _), b in sorted(self.objects.items()) if k == kind]

    def job(self, name: str = "bot") -> Json:
        return self.objects[KIND, name]

    def live_pods(self) -> list[Json]:
        return [p for p in self.all("Pod") if p["status"]["phase"] not in FINISHED]

    # -- training-operator, kubelets, garbage collector, trainer ------------------------------

    def train_operator(self) -> None:
        """Make missing pods, silently also those that were deleted; note how a workload ended."""
        for workload in self.all(WORKLOAD):
            if PyTorchJob().outcome(workload) is not None:
                self._clean_up(workload)
                continue
            self._make_pods(workload)
            pods = self._pods_of(workload)
            phases = {p["metadata"]["name"]: p["status"]["phase"] for p in pods}
            ended = None
            if phases.get(f"{workload['metadata']['name']}-master-0") == "Succeeded":
                ended = "Succeeded"
            elif "Failed" in phases.values():
                ended = "Failed"
            if ended:
                body = copy.deepcopy(workload)
                body["status"] = {"conditions": [{"type": ended, "status": "True"}]}
                self.store(body)

    def _clean_up(self, workload: Json) -> None:
        for pod in self._pods_of(workload):
            if pod["status"]["phase"] not in FINISHED:
                self._evaporate(pod)

    def _pods_of(self, workload: Json) -> list[Json]:
        uid = workload["metadata"]["uid"]
        return [p for p in self.all("Pod") if p["metadata"]["ownerReferences"][0]["uid"] == uid]

    def _make_pods(self, workload: Json) -> None:
        for role, replica in workload["spec"]["pytorchReplicaSpecs"].items():
            for index in range(replica["replicas"]):
                name = f"{workload['metadata']['name']}-{role.lower()}-{index}"
                if ("Pod", name) not in self.objects:
                    self.add(self._pod(workload, name, replica["template"]))

    def _pod(self, workload: Json, name: str, template: Json) -> Json:
        owner = {"uid": workload["metadata"]["uid"], "controller": True}
        metadata = {**template["metadata"], "name": name, "ownerReferences": [owner]}
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": copy.deepcopy(metadata),
            "status": {"phase": "Pending"},
        }

    def kubelet(self, name: str) -> None:
        """Start a pod; its rank 0 claims the output."""
        pod = self.objects.get(("Pod", name))
        if pod is None or pod["status"]["phase"] != "Pending" or name in self.unreachable:
            return
        body = copy.deepcopy(pod)
        body["status"] = {
            "phase": "Running",
            "conditions": [
                {"type": "PodScheduled", "status": "True", "lastTransitionTime": self.stamp()}
            ],
            "containerStatuses": [{"name": "pytorch", "state": {"running": {}}}],
        }
        self.store(body)
        if name.endswith("-master-0"):
            self.claim = (attempt_of(body), body["metadata"]["uid"])

    def end(self, name: str, reason: str) -> None:
        """End a running pod with the trainer's Result, or by a kill that leaves none."""
        pod = self.objects.get(("Pod", name))
        if pod is None or pod["status"]["phase"] != "Running" or name in self.unreachable:
            return
        body = copy.deepcopy(pod)
        terminated = self._terminated(pod, reason)
        phase = "Succeeded" if terminated["exitCode"] == 0 else "Failed"
        body["status"]["phase"] = phase
        body["status"]["containerStatuses"][0]["state"] = {"terminated": terminated}
        self.store(body)

    def _terminated(self, pod: Json, reason: str) -> Json:
        attempt = attempt_of(pod)
        code = {"Killed": 137, "Succeeded": 0}.get(reason, 1)
        end = {"exitCode": code, "finishedAt": self.stamp(), "reason": "Error"}
        if reason == "OOMKilled":
            return {**end, "exitCode": 137, "reason": "OOMKilled"}
        if reason == "Killed":
            return end
        result = {"attempt": attempt, "outcome": "Failed", "reason": reason, "message": "told"}
        if reason == "Succeeded":
            result["outcome"] = "Succeeded"
            if pod["metadata"]["name"].endswith("-master-0"):
                if self.claim != (attempt, pod["metadata"]["uid"]):
                    result |= {"outcome": "Failed", "reason": "Superseded"}
                    end["exitCode"] = 17
                else:
                    self.committed.append(attempt)
                    result["artifact"] = artifact(self.job()["metadata"]["uid"], attempt)
        return {**end, "message": json.dumps(result)}

    def collect(self) -> None:
        """Remove what has lost its owner."""
        uids = {b["metadata"]["uid"] for b in self.objects.values()}
        for body in list(self.objects.values()):
            owners = body["metadata"].get("ownerReferences", [])
            if owners and not any(o["uid"] in uids for o in owners):
                if body["kind"] == "Pod":
                    self._evaporate(body)
                else:
                    self.drop(body["kind"], body["metadata"]["name"])

    def _evaporate(self, pod: Json) -> None:
        """A pod goes only when its node confirms it."""
        name = pod["metadata"]["name"]
        if name not in self.unreachable:
            self.drop("Pod", name)
        elif "deletionTimestamp" not in pod["metadata"]:
            self.store({**pod, "metadata": {**pod["metadata"], "deletionTimestamp": self.stamp()}})

    def delete_pod(self, name: str) -> None:
        if ("Pod", name) in self.objects:
            self._evaporate(self.objects["Pod", name])

    def lose_nodes(self) -> None:
        """Evict the pods of nodes that have not answered for long."""
        for name in self.unreachable:
            self.delete_pod(name)

    def deliveries(self, kind: str, count: int) -> Iterator[tuple[str, Json]]:
        """Take the oldest events of a kind off its queue."""
        for _ in range(min(count, len(self.pending[kind]))):
            event = self.pending[kind].pop(0)
            self.told[kind].append(event)
            yield copy.deepcopy(event)


class ModelApi:
    """`Api` over a World, with one fault ahead; `on_create` may object to what is created."""

    def __init__(self, world: World, check: Any) -> None:
        self.world = world
        self.fault: Fault | None = None
        self.dead = False
        self._check = check

    async def list_objects(self, kind: str, namespace: str | None, selector: str) -> Listing:
        self._alive()
        key, _, value = selector.partition("=")
        items = [
            copy.deepcopy(b)
            for b in self.world.all(kind)
            if not selector or b["metadata"].get("labels", {}).get(key) == value
        ]
        return Listing(tuple(items), str(self.world.version))

    async def get(self, kind: str, namespace: str, name: str) -> Json | None:
        self._alive()
        return copy.deepcopy(self.world.objects.get((kind, name)))

    async def create(self, body: Json) -> Json:
        if body["kind"] == "Event":
            return body

        def write() -> Json:
            if (body["kind"], body["metadata"]["name"]) in self.world.objects:
                raise ApiError(409, "AlreadyExists", "already exists")
            self._check(body)
            return self.world.add(body)

        return self._write(write)

    async def apply(self, body: Json) -> Json:
        def write() -> Json:
            known = self.world.objects[body["kind"], body["metadata"]["name"]]
            metadata = {**known["metadata"], **copy.deepcopy(body["metadata"])}
            return self.world.store({**known, **copy.deepcopy(body), "metadata": metadata})

        return self._write(write)

    async def delete(self, kind: str, namespace: str, name: str, uid: str) -> None:
        def write() -> None:
            known = self.world.objects.get((kind, name))
            if known is not None and known["metadata"]["uid"] == uid:
                self.world.drop(kind, name)

        self._write(write)

    async def patch_status(self, body: Json, status: Json) -> Json:
        def write() -> Json:
            known = self.world.objects.get((KIND, body["metadata"]["name"]))
            if known is None:
                raise ApiError(404, "NotFound", "not found")
            if known["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"]:
                raise ApiError(409, "Conflict", "the object has been modified")
            return self.world.store({**copy.deepcopy(known), "status": copy.deepcopy(status)})

        return self._write(write)

    async def events_of(self, namespace: str, uid: str) -> list[Json]:
        self._alive()
        return []

    async def patch_event(self, namespace: str, name: str, patch: Json) -> None:
        self._alive()

    def _alive(self) -> None:
        if self.dead:
            raise Crash

    def _write(self, write: Any) -> Any:
        self._alive()
        fault, hit = self.fault, False
        if fault is not None:
            fault.write -= 1
            hit = fault.write < 0
        if hit and not fault.after:
            self._strike(fault)
        answer = write()
        self.world.writes += 1
        if hit and fault.after:
            self._strike(fault)
        return answer

    def _strike(self, fault: Fault) -> None:
        self.fault = None
        if fault.crash:
            self.dead = True
            raise Crash
        raise Unreachable("the connection was lost")


def attempt_of(body: Json) -> int:
    return int(body["metadata"]["labels"][ATTEMPT_LABEL])


def artifact(uid: str, attempt: int) -> Json:
    path = f"s3://adapters/bot/runs/{uid}/a{attempt}/artifact"
    return {"uri": path, "digest": f"sha256:{attempt:064x}", "bytes": 1}


def watched_kinds() -> list[str]:
    return [KIND, *CHILDREN]


def belongs(body: Json, job: str) -> bool:
    return (body["metadata"].get("labels") or {}).get(JOB_LABEL) == job


__all__ = ["Crash", "Fault", "ModelApi", "World", "timedelta"]
