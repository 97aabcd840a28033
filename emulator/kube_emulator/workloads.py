"""Deployments become ReplicaSets, ReplicaSets become pods: `python -m kube_emulator.workloads`.

A stand-in for the part of kube-controller-manager that runs an operator's Deployment. Strategies
Recreate and RollingUpdate are kept; the latter brings up all new pods before it takes any old one
away, whatever maxSurge and maxUnavailable say. Left out: pause, rollback, progress deadlines.
"""

import asyncio
import copy
import hashlib
import json
import secrets
from collections.abc import Sequence

from kube_emulator.client import (
    DEPLOYMENTS,
    PODS,
    REPLICA_SETS,
    ApiError,
    Client,
    Informer,
    Object,
    Resource,
    key_of,
)
from kube_emulator.component import run_client
from kube_emulator.events import Recorder
from kube_emulator.timestamps import timestamp
from kube_emulator.work_queue import WorkQueue

HASH = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"


class Workloads:
    """Reconciles all Deployments and ReplicaSets until cancelled."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._deployment_events = Recorder(client, "deployment-controller")
        self._set_events = Recorder(client, "replicaset-controller")
        self._deployment_queue = WorkQueue(self._reconcile_deployment)
        self._set_queue = WorkQueue(self._reconcile_set)
        self._deployments = Informer(client, DEPLOYMENTS.path(), self._on_deployment)
        self._sets = Informer(client, REPLICA_SETS.path(), self._on_set)
        self._pods = Informer(client, PODS.path(), self._on_pod)

    async def run(self) -> None:
        """A failure of any part ends the controller."""
        informers = (self._deployments, self._sets, self._pods)
        async with asyncio.TaskGroup() as group:
            for informer in informers:
                group.create_task(informer.run())
            group.create_task(self._deployment_queue.run(informers))
            group.create_task(self._set_queue.run(informers))

    async def _reconcile_deployment(self, key: str) -> None:
        deployment = self._deployments.items.get(key)
        if deployment is None or "deletionTimestamp" in deployment["metadata"]:
            return
        owned = [one for one in self._sets.items.values() if _is_owned(one, deployment)]
        wanted, digest = deployment["spec"].get("replicas", 1), template_hash(deployment)
        current = next((one for one in owned if _hash_of(one) == digest), None)
        old = [one for one in owned if one is not current]
        recreate = deployment["spec"].get("strategy", {}).get("type") == "Recreate"
        if recreate:
            await self._scale_all(old, 0)
        if current is None and not (recreate and any(self._own_pods(one) for one in old)):
            await self._create(deployment, _replica_set(deployment, digest, owned))
        elif current is not None:
            await self._scale_all([current], wanted)
            if _available(current) >= wanted:
                await self._scale_all(old, 0)
        await self._report_deployment(deployment, current, owned)

    async def _report_deployment(
        self, deployment: Object, current: Object | None, owned: Sequence[Object]
    ) -> None:
        status = deployment_status(deployment, current, owned)
        await self._report(DEPLOYMENTS, deployment, status)

    async def _reconcile_set(self, key: str) -> None:
        replica_set = self._sets.items.get(key)
        if replica_set is None or "deletionTimestamp" in replica_set["metadata"]:
            return
        pods = self._own_pods(replica_set)
        alive = [one for one in pods if _is_alive(one)]
        wanted = replica_set["spec"].get("replicas", 1)
        for _ in range(wanted - len(alive)):
            await self._create(replica_set, _pod(replica_set))
        # those that are not ready go first
        for pod in sorted(alive, key=_is_ready)[: max(0, len(alive) - wanted)]:
            meta = pod["metadata"]
            await self._client.delete(PODS.path(meta["namespace"], meta["name"]), uid=meta["uid"])
        ready = sum(_is_ready(one) for one in alive)
        counts = {"replicas": len(alive), "readyReplicas": ready, "availableReplicas": ready}
        counts |= {"fullyLabeledReplicas": len(alive)}
        status = {key: value for key, value in counts.items() if value or key == "replicas"}
        status["observedGeneration"] = replica_set["metadata"]["generation"]
        await self._report(REPLICA_SETS, replica_set, status)

    async def _create(self, owner: Object, item: Object) -> None:
        resource = PODS if item["kind"] == "Pod" else REPLICA_SETS
        recorder = self._set_events if item["kind"] == "Pod" else self._deployment_events
        meta = item["metadata"]
        try:
            created = await self._client.create(resource.path(meta["namespace"]), item)
        except ApiError as error:
            if error.reason == "AlreadyExists":
                return
            text = f"Error creating: {error.message}"
            await recorder.event(owner, "Warning", "FailedCreate", text)
            raise
        if item["kind"] == "Pod":
            self._pods.note(created)
            text = f"Created pod: {meta['name']}"
            await recorder.event(owner, "Normal", "SuccessfulCreate", text)

    async def _scale_all(self, replica_sets: Sequence[Object], replicas: int) -> None:
        for one in replica_sets:
            if one["spec"].get("replicas", 1) != replicas:
                path = REPLICA_SETS.path(one["metadata"]["namespace"], one["metadata"]["name"])
                await self._client.patch(path, {"spec": {"replicas": replicas}})

    async def _report(self, resource: Resource, item: Object, status: Object) -> None:
        if status == item.get("status"):
            return
        path = resource.path(item["metadata"]["namespace"], item["metadata"]["name"], "status")
        await self._client.replace(path, item | {"status": status})

    def _own_pods(self, replica_set: Object) -> list[Object]:
        return [one for one in self._pods.items.values() if _is_owned(one, replica_set)]

    def _on_deployment(self, _old: Object | None, new: Object | None) -> None:
        if new is not None:
            self._deployment_queue.add(key_of(new))

    def _on_set(self, old: Object | None, new: Object | None) -> None:
        if new is not None:
            self._set_queue.add(key_of(new))
        self._wake_owner(new or old or {}, "Deployment", self._deployment_queue)

    def _on_pod(self, old: Object | None, new: Object | None) -> None:
        self._wake_owner(new or old or {}, "ReplicaSet", self._set_queue)
        for replica_set in self._sets.items.values():
            if new is None and old and _is_owned(old, replica_set):
                self._wake_owner(replica_set, "Deployment", self._deployment_queue)

    def _wake_owner(self, item: Object, kind: str, queue: WorkQueue) -> None:
        meta = item["metadata"]
        for reference in meta.get("ownerReferences", []):
            if reference["kind"] == kind:
                queue.add(f"{meta['namespace']}/{reference['name']}")


def template_hash(deployment: Object) -> str:
    """Names the ReplicaSet of one pod template; any change of the template changes it."""
    text = json.dumps(deployment["spec"]["template"], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def deployment_status(
    deployment: Object, current: Object | None, owned: Sequence[Object]
) -> Object:
    """Counts, and the conditions that `kubectl rollout status` and Helm wait for."""
    wanted = deployment["spec"].get("replicas", 1)
    total = sum(one.get("status", {}).get("replicas", 0) for one in owned)
    available = sum(_available(one) for one in owned)
    updated = current.get("status", {}).get("replicas", 0) if current else 0
    done = current is not None and updated == total == wanted == _available(current)
    counts = {
        "replicas": total,
        "updatedReplicas": updated,
        "readyReplicas": available,
        "availableReplicas": available,
        "unavailableReplicas": max(0, wanted - available),
    }
    status: Object = {key: value for key, value in counts.items() if value}
    status["observedGeneration"] = deployment["metadata"]["generation"]
    enough = available >= wanted
    old = {one["type"]: one for one in deployment.get("status", {}).get("conditions", [])}
    verdicts = [
        ("Available", enough, f"MinimumReplicas{'Available' if enough else 'Unavailable'}"),
        ("Progressing", True, "NewReplicaSetAvailable" if done else "ReplicaSetUpdated"),
    ]
    status["conditions"] = [_condition(old.get(kind), kind, *rest) for kind, *rest in verdicts]
    return status


def _condition(old: Object | None, kind: str, holds: bool, reason: str) -> Object:
    value, stamp = "True" if holds else "False", timestamp()
    if old and old["status"] == value and old["reason"] == reason:
        return old
    since = old["lastTransitionTime"] if old and old["status"] == value else stamp
    times = {"lastUpdateTime": stamp, "lastTransitionTime": since}
    return {"type": kind, "status": value, "reason": reason, "message": reason} | times


def _replica_set(deployment: Object, digest: str, owned: Sequence[Object]) -> Object:
    meta, spec = deployment["metadata"], deployment["spec"]
    template = copy.deepcopy(spec["template"])
    labels = template.setdefault("metadata", {}).setdefault("labels", {})
    labels[HASH] = digest
    selector = copy.deepcopy(spec["selector"])
    selector.setdefault("matchLabels", {})[HASH] = digest
    revisions = [int(one["metadata"].get("annotations", {}).get(REVISION, 0)) for one in owned]
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": f"{meta['name']}-{digest}",
            "namespace": meta["namespace"],
            "labels": labels,
            "annotations": {REVISION: str(max(revisions, default=0) + 1)},
            "ownerReferences": [_owner(deployment)],
        },
        "spec": {"replicas": spec.get("replicas", 1), "selector": selector, "template": template},
    }


def _pod(replica_set: Object) -> Object:
    meta, template = replica_set["metadata"], copy.deepcopy(replica_set["spec"]["template"])
    own = template.get("metadata", {})
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{meta['name']}-{secrets.token_hex(3)[:5]}",
            "namespace": meta["namespace"],
            "labels": own.get("labels", {}),
            "annotations": own.get("annotations", {}),
            "ownerReferences": [_owner(replica_set)],
        },
        "spec": template["spec"],
    }


def _owner(item: Object) -> Object:
    names = {"name": item["metadata"]["name"], "uid": item["metadata"]["uid"]}
    kind = {"apiVersion": item["apiVersion"], "kind": item["kind"]}
    return kind | names | {"controller": True, "blockOwnerDeletion": True}


def _is_owned(item: Object, owner: Object) -> bool:
    references = item["metadata"].get("ownerReferences", [])
    return any(one["uid"] == owner["metadata"]["uid"] for one in references)


def _hash_of(replica_set: Object) -> str:
    return str(replica_set["metadata"].get("labels", {}).get(HASH))


def _available(replica_set: Object) -> int:
    return int(replica_set.get("status", {}).get("availableReplicas", 0))


def _is_alive(pod: Object) -> bool:
    ended = pod.get("status", {}).get("phase") in ("Succeeded", "Failed")
    return not ended and "deletionTimestamp" not in pod["metadata"]


def _is_ready(pod: Object) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


if __name__ == "__main__":
    run_client(__doc__, lambda client: Workloads(client).run())
