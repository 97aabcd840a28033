"""A backend's controller, kubelets, trainers and garbage collector in memory, for the model tests.

Every actor moves only when it is told to, so a schedule decides who is late. Watch events wait in a
queue per kind until they are delivered.
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
from finetune_contract.artifact import artifact_path
from finetune_contract.checkpoint import checkpoint_path
from finetune_contract.progress import ANNOTATION
from finetune_operator.job.names import ATTEMPT_LABEL, JOB_LABEL
from finetune_operator.job.resources import children
from support.operator.backends import ONE_OBJECT, Played
from support.storage.publications import RUN

Json = Any
NAMESPACE = "team"
FINISHED = ("Succeeded", "Failed")
GRACE = 10  # seconds
RFC3339 = "%Y-%m-%dT%H:%M:%SZ"


@dataclass
class World:
    """The truth, and what the operator has not been told of yet."""

    backend: Played = ONE_OBJECT
    now: datetime = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
    objects: dict[tuple[str, str], Json] = field(default_factory=dict)
    pending: dict[str, list[tuple[str, Json]]] = field(default_factory=lambda: defaultdict(list))
    told: dict[str, list[tuple[str, Json]]] = field(default_factory=lambda: defaultdict(list))
    unreachable: set[str] = field(default_factory=set)
    claim: tuple[int, str] | None = None  # attempt and run that may commit
    committed: list[int] = field(default_factory=list)
    steps: dict[int, int] = field(default_factory=dict)  # done by the present rank 0, by attempt
    most_steps: dict[int, int] = field(default_factory=dict)  # that any rank 0 of it did
    resumed: dict[int, int] = field(default_factory=dict)
    saved: Json = None  # the newest complete checkpoint
    tried: bool = False  # a pod found the rewards good
    polite: bool = False  # pods that are deleted save a checkpoint and say so
    sidecars: bool = False  # what else was put into the pods runs on until they are deleted
    logged: dict[str, datetime] = field(default_factory=dict)  # a pod's last line in its log
    writes: int = 0
    version: int = 0
    serial: int = 0

    def stamp(self) -> str:
        return self.now.strftime(RFC3339)

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
        if body["kind"] == "Pod":
            body.setdefault("status", {"phase": "Pending"})
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

    def find(self, kind: str, name: str) -> Json | None:
        return self.objects.get((kind, name))

    def job(self, name: str = "bot") -> Json:
        return self.objects[KIND, name]

    def leads(self, pod: Json) -> bool:
        """Tell whether a pod is an attempt's rank 0."""
        return self.backend.node_rank(pod) == 0

    def live_pods(self) -> list[Json]:
        """Return the pods of attempts that may run."""
        pods = [p for p in self.all("Pod") if not tries_rewards(p)]
        return [p for p in pods if p["status"]["phase"] not in FINISHED and not has_ended(p)]

    # -- the backend's controller, kubelets, garbage collector, trainer -----------------------

    def train_operator(self) -> None:
        """Make missing pods, silently also those that were deleted; note how a workload ended."""
        for workload in self.all(self.backend.workload):
            if self.backend.outcome(workload) is not None:
                self._clean_up(workload)
                continue
            self._make_pods(workload)
            pods = self._pods_of(workload)
            well = any(self.leads(p) and p["status"]["phase"] == "Succeeded" for p in pods)
            if well or any(self.backend.has_failed(p) for p in pods):
                body = copy.deepcopy(workload)
                body["status"] = self.backend.ended(well)
                self.store(body)

    def _clean_up(self, workload: Json) -> None:
        for pod in self._pods_of(workload):
            if pod["status"]["phase"] not in FINISHED:
                self.delete_pod(pod["metadata"]["name"])

    def _pods_of(self, workload: Json) -> list[Json]:
        uid = workload["metadata"]["uid"]
        return [p for p in self.all("Pod") if p["metadata"]["ownerReferences"][0]["uid"] == uid]

    def _make_pods(self, workload: Json) -> None:
        for name, template in self.backend.pods(workload, self.find):
            if ("Pod", name) not in self.objects:
                self.add(self._pod(workload, name, template))

    def _pod(self, workload: Json, name: str, template: Json) -> Json:
        metadata = workload["metadata"]
        owner = {"kind": workload["kind"], "name": metadata["name"], "uid": metadata["uid"]}
        owner["controller"] = True
        metadata = {**template["metadata"], "name": name, "ownerReferences": [owner]}
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": copy.deepcopy(metadata),
            "status": {"phase": "Pending"},
        }

    def kubelet(self, name: str) -> None:
        """Start a pod, whose rank 0 claims the output; confirm that a deleted one has gone."""
        pod = self.objects.get(("Pod", name))
        if pod is None or name in self.unreachable:
            return
        if "deletionTimestamp" in pod["metadata"]:
            if self.polite:
                self.end(name, "Interrupted")
            self.drop("Pod", name)
        elif pod["status"]["phase"] == "Pending":
            self._start(pod)

    def _start(self, pod: Json) -> None:
        container = "rewards" if tries_rewards(pod) else self.backend.container
        body = copy.deepcopy(pod)
        body["status"] = {
            "phase": "Running",
            "conditions": [
                {"type": "PodScheduled", "status": "True", "lastTransitionTime": self.stamp()}
            ],
            "containerStatuses": [{"name": container, "state": {"running": {}}}],
        }
        self.store(body)
        if self.leads(body):
            attempt = attempt_of(body)
            self.claim = (attempt, body["metadata"]["uid"])
            self.resumed[attempt] = self.saved["step"] if self.saved else 0
            self._reach(attempt, self.resumed[attempt])

    def train(self, name: str, steps: int, save: bool) -> None:
        """Do steps on a running rank 0, save perhaps, and report into the Lease if it is there."""
        pod = self.objects.get(("Pod", name))
        if pod is None or not trains(pod) or not self.leads(pod):
            return
        attempt = attempt_of(pod)
        self._reach(attempt, self.steps[attempt] + steps)
        if save:
            self._save(attempt)
        lease = self.objects.get(("Lease", f"bot-a{attempt}"))
        if lease is None:
            return
        body = copy.deepcopy(lease)
        body["metadata"]["annotations"][ANNOTATION] = json.dumps(self._progress(attempt))
        body["spec"] = {"renewTime": self.stamp()}
        self.store(body)

    def _reach(self, attempt: int, step: int) -> None:
        self.steps[attempt] = step
        self.most_steps[attempt] = max(step, self.most_steps.get(attempt, 0))

    def _save(self, attempt: int) -> None:
        step = self.steps[attempt]
        if self.saved is None or self.saved["step"] < step:
            path = checkpoint_path(self.job()["metadata"]["uid"], attempt, RUN, step)
            uri = f"s3://adapters/bot/{path}"
            self.saved = {"attempt": attempt, "step": step, "uri": uri}

    def _progress(self, attempt: int) -> Json:
        told = {"phase": "Train", "done": self.steps[attempt], "step": self.steps[attempt]}
        if self.resumed[attempt]:
            told["resumedStep"] = self.resumed[attempt]
        return told | ({"checkpoint": self.saved} if self.saved else {})

    def end(self, name: str, reason: str) -> None:
        """End a running pod with the trainer's Result, or by a kill that leaves none."""
        pod = self.objects.get(("Pod", name))
        if pod is None or not trains(pod) or name in self.unreachable:
            return
        body = copy.deepcopy(pod)
        terminated = self._terminated(pod, reason)
        phase = "Succeeded" if terminated["exitCode"] == 0 else "Failed"
        body["status"]["phase"] = "Running" if self.sidecars else phase
        body["status"]["containerStatuses"][0]["state"] = {"terminated": terminated}
        self.store(body)

    def _terminated(self, pod: Json, reason: str) -> Json:
        attempt = 1 if tries_rewards(pod) else attempt_of(pod)
        code = {"Killed": 137, "Succeeded": 0}.get(reason, 1)
        end = {"exitCode": code, "finishedAt": self.stamp(), "reason": "Error"}
        if reason == "OOMKilled":
            return {**end, "exitCode": 137, "reason": "OOMKilled"}
        if reason == "Killed":
            return end
        result = {"attempt": attempt, "outcome": "Failed", "reason": reason, "message": "told"}
        if self.leads(pod):
            if reason == "Interrupted":
                self._save(attempt)
            result["step"] = self.steps[attempt] + (reason not in ("Interrupted", "Succeeded"))
            result |= {"checkpoint": self.saved} if self.saved else {}
        if reason == "Succeeded":
            result["outcome"] = "Succeeded"
            self.tried = self.tried or tries_rewards(pod)
            if self.leads(pod):
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
                    self.delete_pod(body["metadata"]["name"])
                else:
                    self.drop(body["kind"], body["metadata"]["name"])

    def delete_pod(self, name: str, why: str = "") -> None:
        """Ask a pod to go; it runs on until its node confirms that it has gone."""
        pod = self.objects.get(("Pod", name))
        if pod is None or "deletionTimestamp" in pod["metadata"]:
            return
        due = (self.now + timedelta(seconds=GRACE)).strftime(RFC3339)
        asked = {"deletionTimestamp": due, "deletionGracePeriodSeconds": GRACE}
        body = {**copy.deepcopy(pod), "metadata": {**pod["metadata"], **asked}}
        if why:
            told = {"type": "DisruptionTarget", "status": "True", "reason": why}
            body["status"].setdefault("conditions", []).append(told)
        self.store(body)

    def lose_nodes(self) -> None:
        """Evict the pods of nodes that have not answered for long; these never confirm it."""
        for name in sorted(self.unreachable):
            self.delete_pod(name, "DeletionByTaintManager")

    def force_out(self, name: str) -> None:
        """Remove a pod whatever its node says; the next one of the name has another node."""
        self.unreachable.discard(name)
        self.drop("Pod", name)

    def deliveries(self, kind: str, count: int) -> Iterator[tuple[str, Json]]:
        """Take the oldest events of a kind off its queue."""
        for _ in range(min(count, len(self.pending[kind]))):
            event = self.pending[kind].pop(0)
            self.told[kind].append(event)
            yield copy.deepcopy(event)


def trains(pod: Json) -> bool:
    """Tell whether a pod's trainer runs."""
    return bool(pod["status"]["phase"] == "Running" and not has_ended(pod))


def has_ended(pod: Json) -> bool:
    """Tell whether a pod's trainer has ended."""
    containers = pod["status"].get("containerStatuses", [])
    return any("terminated" in container["state"] for container in containers)


def tries_rewards(pod: Json) -> bool:
    return bool(pod["metadata"]["name"].endswith("-rewards"))


def attempt_of(body: Json) -> int:
    return int(body["metadata"]["labels"][ATTEMPT_LABEL])


def artifact(uid: str, attempt: int) -> Json:
    path = f"s3://adapters/bot/{artifact_path(uid, attempt, RUN)}"
    return {"uri": path, "digest": f"sha256:{attempt:064x}", "bytes": 1}


def child_kinds(backend: Played) -> list[str]:
    return list(children(backend.kinds))


def belongs(body: Json, job: str) -> bool:
    return (body["metadata"].get("labels") or {}).get(JOB_LABEL) == job
