"""A backend's controller, kubelets and garbage collector in memory, for the model tests.

Every actor moves only when it is told to, so a schedule decides who is late. Watch events wait in a
queue per kind until they are delivered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from finetune_operator.job.names import JOB_LABEL
from finetune_operator.job.resources import children
from support.operator.backends import Played
from support.operator.model.store import RFC3339, copied
from support.operator.model.trainers import Trainers, attempt_name, has_ended, tries_rewards

Json = Any
FINISHED = ("Succeeded", "Failed")
GRACE = 10  # seconds


@dataclass
class World(Trainers):
    """The truth, and what the operator has not been told of yet."""

    polite: bool = False  # pods that are deleted save a checkpoint and say so
    stubborn: bool = False  # pods that are deleted run on until their grace is over
    room: int | None = None  # for how many more pods there is quota; None: for all
    refused: dict[str, str] = field(default_factory=dict)  # kinds of which none is made, and why
    logged: dict[str, datetime] = field(default_factory=dict)  # a pod's last line in its log
    said: dict[str, list[Json]] = field(default_factory=dict)  # Events by their object's uid
    edits: list[Json] = field(default_factory=list)  # statuses that were written by hand
    statuses: list[Json] = field(default_factory=list)  # that the operator wrote
    made: set[str] = field(default_factory=set)  # uids of the pods of workloads
    on_start: Callable[[Json], None] = lambda pod: None  # may object to a pod that starts

    @property
    def edited(self) -> bool:
        """Tell whether someone wrote the job's status by hand."""
        return bool(self.edits)

    def live_pods(self) -> list[Json]:
        """Return the pods of attempts that may run."""
        pods = [p for p in self.all("Pod") if not tries_rewards(p) and self._is_known(p)]
        return [p for p in pods if p["status"]["phase"] not in FINISHED and not has_ended(p)]

    def _is_known(self, pod: Json) -> bool:
        """Tell whether the operator can know that a workload made a pod: of one that has no owner
        any more only an unchanged status says so."""
        real = pod["metadata"]["uid"] in self.made
        return real and not (self.edited and owner_uid(pod) is None)

    # -- the backend's controller -------------------------------------------------------------

    def train_operator(self) -> None:
        """Make missing pods, silently also those that were deleted; note how a workload ended."""
        for workload in self.all(self.backend.workload):
            if self.backend.outcome(workload) is not None or is_held(workload):
                self._clean_up(workload)
                continue
            pods = self._pods_of(workload)
            if not self._make_pods(workload):
                continue  # a pass that fails writes no status
            well = any(self.leads(p) and p["status"]["phase"] == "Succeeded" for p in pods)
            if well or any(self.backend.has_failed(p) for p in pods):
                body = copied(workload)
                body["status"] = self.backend.ended(well)
                self.store(body)

    def hold(self, held: bool) -> None:
        """Suspend the newest workload or let it go, as a queue does."""
        for workload in self.all(self.backend.workload)[-1:]:
            body = copied(workload)
            body["spec"].setdefault("runPolicy", {})["suspend"] = held
            if body != workload:
                self.store(body)

    def _clean_up(self, workload: Json) -> None:
        for pod in self._pods_of(workload):
            if pod["status"]["phase"] not in FINISHED:
                self.delete_pod(pod["metadata"]["name"])

    def _pods_of(self, workload: Json) -> list[Json]:
        uid = workload["metadata"]["uid"]
        return [p for p in self.all("Pod") if owner_uid(p) == uid]

    def _make_pods(self, workload: Json) -> bool:
        """Return whether all are there; the first that is refused ends the pass."""
        for name, template in self.backend.pods(workload, self.find):
            known = self.find("Pod", name)
            if known is not None and owner_uid(known) == workload["metadata"]["uid"]:
                continue
            if why := "already exists" if known else self._objection(name):
                self._warn(workload, f'Error creating: pods "{name}" {why}')
                return False
            if self.room is not None:
                self.room -= 1
            self.made.add(self.add(self._pod(workload, name, template))["metadata"]["uid"])
        return True

    def _objection(self, name: str) -> str | None:
        """Return why the cluster refuses a pod."""
        return "is forbidden: exceeded quota: pods" if self.room == 0 else None

    def _warn(self, about: Json, message: str) -> None:
        told = {"type": "Warning", "message": message, "lastTimestamp": self.stamp()}
        self.said.setdefault(about["metadata"]["uid"], []).append(told)

    def _pod(self, workload: Json, name: str, template: Json) -> Json:
        metadata = workload["metadata"]
        owner = {"kind": workload["kind"], "name": metadata["name"], "uid": metadata["uid"]}
        owner["controller"] = True
        metadata = {**template["metadata"], "name": name, "ownerReferences": [owner]}
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": metadata,
            "status": {"phase": "Pending"},
        }

    # -- kubelets and the garbage collector ---------------------------------------------------

    def kubelet(self, name: str) -> None:
        """Start a pod; let one that was deleted go."""
        pod = self.find("Pod", name)
        if pod is None or name in self.unreachable or not self.is_real(pod):
            return
        if "deletionTimestamp" in pod["metadata"]:
            self._let_go(pod)
        elif pod["status"]["phase"] == "Pending":
            self._start(pod)

    def is_real(self, pod: Json) -> bool:
        """Tell whether a pod has a trainer; one that a stranger planted does nothing."""
        return tries_rewards(pod) or pod["metadata"]["uid"] in self.made

    def _let_go(self, pod: Json) -> None:
        name = pod["metadata"]["name"]
        runs = pod["status"]["phase"] == "Running" and not has_ended(pod)
        if self.stubborn and runs and self.stamp() < pod["metadata"]["deletionTimestamp"]:
            return
        if runs and (self.polite or self.stubborn):
            self.end(name, "Interrupted" if self.polite else "Killed")
        self.drop("Pod", name)

    def _start(self, pod: Json) -> None:
        container = "rewards" if tries_rewards(pod) else self.backend.container
        given = {"type": "PodScheduled", "status": "True", "lastTransitionTime": self.stamp()}
        if not tries_rewards(pod) and not self.find("ConfigMap", config := attempt_name(pod)):
            self._warn(pod, f'MountVolume.SetUp failed: configmap "{config}" not found')
            if "conditions" not in pod["status"]:
                self.store({**copied(pod), "status": {"phase": "Pending", "conditions": [given]}})
            return
        body = copied(pod)
        body["status"] = {
            "phase": "Running",
            "conditions": pod["status"].get("conditions", [given]),
            "containerStatuses": [{"name": container, "state": {"running": {}}}],
        }
        self.on_start(body)
        self.store(body)
        self.begin(body)

    def collect(self) -> None:
        """Remove what has lost its owner."""
        uids = {b["metadata"]["uid"] for b in self.objects.values()}
        uids.add("uid-of-another")  # a Node's, which is not of this World
        for body in list(self.objects.values()):
            owners = body["metadata"].get("ownerReferences", [])
            if owners and not any(o.get("uid") in uids for o in owners):
                if body["kind"] == "Pod":
                    self.delete_pod(body["metadata"]["name"])
                else:
                    self.drop(body["kind"], body["metadata"]["name"])

    def delete_pod(self, name: str, why: str = "") -> None:
        """Ask a pod to go; it runs on until its node confirms that it has gone."""
        pod = self.find("Pod", name)
        if pod is None or "deletionTimestamp" in pod["metadata"]:
            return
        due = (self.now + timedelta(seconds=GRACE)).strftime(RFC3339)
        asked = {"deletionTimestamp": due, "deletionGracePeriodSeconds": GRACE}
        body = {**copied(pod), "metadata": {**pod["metadata"], **asked}}
        if why:
            told = {"type": "DisruptionTarget", "status": "True", "reason": why}
            body["status"].setdefault("conditions", []).append(told)
        self.store(body)

    def orphan(self, name: str) -> None:
        """Delete a workload as `--cascade=orphan` does: its pods run on, and belong to nobody."""
        workload = self.find(self.backend.workload, name)
        pods = self._pods_of(workload) if workload else []
        known = [a for a in self.job().get("status", {}).get("attempts", []) if a.get("podUids")]
        recorded = {uid for attempt in known for uid in attempt["podUids"]}
        if workload is None or not recorded.issuperset(p["metadata"]["uid"] for p in pods):
            return
        for pod in pods:
            body = copied(pod)
            body["metadata"]["ownerReferences"] = []
            self.store(body)
        self.drop(self.backend.workload, name)

    def lose_nodes(self) -> None:
        """Evict the pods of nodes that have not answered for long; these never confirm it."""
        for name in sorted(self.unreachable):
            self.delete_pod(name, "DeletionByTaintManager")

    def remove_nodes(self) -> None:
        """Remove the nodes that do not answer: what ran there has failed, and goes."""
        for name in sorted(self.unreachable):
            if pod := self.find("Pod", name):
                body = copied(pod)
                told = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC"}
                body["status"].setdefault("conditions", []).append(told)
                self.store({**body, "status": {**body["status"], "phase": "Failed"}})
                self.drop("Pod", name)
        self.unreachable.clear()

    def force_out(self, name: str) -> None:
        """Remove a pod whatever its node says; the next one of the name has another node."""
        self.unreachable.discard(name)
        self.drop("Pod", name)


def is_held(workload: Json) -> bool:
    policy = workload["spec"].get("runPolicy")
    return isinstance(policy, dict) and policy.get("suspend") is True


def owner_uid(body: Json) -> str | None:
    """Return the uid of an object's first owner."""
    owners = body["metadata"].get("ownerReferences") or [{}]
    return owners[0].get("uid")


def child_kinds(backend: Played) -> list[str]:
    return list(children(backend.kinds))


def belongs(body: Json, job: str) -> bool:
    return (body["metadata"].get("labels") or {}).get(JOB_LABEL) == job
