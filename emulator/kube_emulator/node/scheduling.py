"""Binds pending pods to the one node, with the scheduler's words when one does not fit."""

import asyncio
import logging
from collections.abc import Iterable
from decimal import Decimal

from kube_emulator.client import PODS, ApiError, Object
from kube_emulator.events import Recorder
from kube_emulator.node.containers.resources import pod_requests
from kube_emulator.quantity import parse
from kube_emulator.timestamps import timestamp

log = logging.getLogger(__name__)

RETRY_SECONDS = 1.0


def obstacle(pod: Object, node: Object, placed: Iterable[Object]) -> str | None:
    """Why `pod` cannot run on `node` beside `placed`, as kube-scheduler says it; None if it can."""
    spec = pod["spec"]
    if node["spec"].get("unschedulable"):
        return _no_node("node(s) were unschedulable")
    if taint := _untolerated(spec.get("tolerations", []), node["spec"].get("taints", [])):
        key, value = taint["key"], taint.get("value", "")
        return _no_node(f"node(s) had untolerated taint {{{key}: {value}}}")
    labels = node["metadata"].get("labels", {})
    if any(labels.get(key) != value for key, value in spec.get("nodeSelector", {}).items()):
        return _no_node("node(s) didn't match Pod's node affinity/selector")
    missing = _insufficient(spec, node, placed)
    if missing:
        return f"0/1 nodes are available: {', '.join(f'1 {reason}' for reason in missing)}."
    return None


def _no_node(reason: str) -> str:
    return f"0/1 nodes are available: 1 {reason}."


def _insufficient(spec: Object, node: Object, placed: Iterable[Object]) -> list[str]:
    free = {name: parse(value) for name, value in node["status"]["allocatable"].items()}
    free["pods"] -= 1
    for other in placed:
        free["pods"] -= 1
        for name, amount in pod_requests(other["spec"]).items():
            free[name] = free.get(name, Decimal(0)) - amount
    reasons = ["Too many pods"] if free["pods"] < 0 else []
    for name, amount in sorted(pod_requests(spec).items()):
        if amount > max(free.get(name, Decimal(0)), Decimal(0)):
            reasons.append(f"Insufficient {name}")
    return reasons


def _untolerated(tolerations: list[Object], taints: list[Object]) -> Object | None:
    for taint in taints:
        hard = taint["effect"] in ("NoSchedule", "NoExecute")
        if hard and not any(_tolerates(one, taint) for one in tolerations):
            return taint
    return None


def _tolerates(toleration: Object, taint: Object) -> bool:
    if toleration.get("effect") not in (None, "", taint["effect"]):
        return False
    if toleration.get("operator") == "Exists":
        return toleration.get("key") in (None, "", taint["key"])
    same_key = toleration.get("key") == taint["key"]
    return bool(same_key and toleration.get("value", "") == taint.get("value", ""))


class Scheduler:
    """Places pods in creation order whenever something that matters has changed."""

    def __init__(self, recorder: Recorder, name: str, pods: dict[str, Object]) -> None:
        self._recorder = recorder
        self._client = recorder.client
        self._name = name
        self._pods = pods
        self._changed = asyncio.Event()
        self._bound: set[str] = set()
        self.node: Object | None = None

    def wake(self) -> None:
        """A pod or the node has changed."""
        self._changed.set()

    async def run(self) -> None:
        """Schedule until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self.node is None:
                continue
            try:
                await self._schedule(self.node)
            except ApiError as error:
                log.info("scheduling: %s; trying again", error)
                await asyncio.sleep(RETRY_SECONDS)
                self._changed.set()

    async def _schedule(self, node: Object) -> None:
        pods = list(self._pods.values())
        # what this scheduler bound is placed, even while the watch still shows it as pending
        self._bound &= {uid_of(pod) for pod in pods if _waits(pod)}
        pending = [pod for pod in pods if _waits(pod) and uid_of(pod) not in self._bound]
        placed = [
            pod
            for pod in pods
            if (pod["spec"].get("nodeName") and not is_terminal(pod)) or uid_of(pod) in self._bound
        ]
        for pod in sorted(pending, key=lambda pod: str(pod["metadata"]["creationTimestamp"])):
            trouble = obstacle(pod, node, placed)
            if trouble is None:
                await self._bind(pod)
                self._bound.add(uid_of(pod))
                placed.append(pod)
            else:
                await self._explain(pod, trouble)

    async def _bind(self, pod: Object) -> None:
        meta = pod["metadata"]
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"]},
            "target": {"apiVersion": "v1", "kind": "Node", "name": self._name},
        }
        try:
            await self._client.create(
                PODS.path(meta["namespace"], meta["name"], "binding"), binding
            )
        except ApiError as error:
            # deleted, or bound by an earlier pass whose news has not come yet
            if error.status not in (404, 409):
                raise
            return
        text = f"Successfully assigned {meta['namespace']}/{meta['name']} to {self._name}"
        await self._recorder.event(pod, "Normal", "Scheduled", text)

    async def _explain(self, pod: Object, trouble: str) -> None:
        """Set PodScheduled=False once per reason: the write itself wakes the scheduler again."""
        conditions = pod.get("status", {}).get("conditions", [])
        others = [one for one in conditions if one["type"] != "PodScheduled"]
        if any(one.get("message") == trouble for one in conditions if one not in others):
            return
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": trouble,
            "lastProbeTime": None,
            "lastTransitionTime": timestamp(),
        }
        meta = pod["metadata"]
        path = PODS.path(meta["namespace"], meta["name"], "status")
        body = {"metadata": {"uid": meta["uid"]}, "status": {"conditions": [*others, condition]}}
        try:
            await self._client.patch(path, body)
        except ApiError as error:
            if error.status not in (404, 409):
                raise
        await self._recorder.event(pod, "Warning", "FailedScheduling", trouble)


def uid_of(pod: Object) -> str:
    return str(pod["metadata"]["uid"])


def is_terminal(pod: Object) -> bool:
    """Whether the pod has ended and holds nothing any more."""
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def _waits(pod: Object) -> bool:
    spec = pod["spec"]
    return not (
        spec.get("nodeName")
        or spec.get("schedulingGates")
        or spec.get("schedulerName", "default-scheduler") != "default-scheduler"
        or "deletionTimestamp" in pod["metadata"]
        or is_terminal(pod)
    )
