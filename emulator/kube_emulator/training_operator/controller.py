"""Makes each PyTorchJob's pods, services and status what they should be."""

import asyncio
import socket
from collections.abc import Sequence
from datetime import UTC, datetime

from kube_emulator.client import PODS, SERVICES, ApiError, Client, Informer, Object, Resource
from kube_emulator.events import Recorder
from kube_emulator.training_operator import pods as build
from kube_emulator.training_operator import status as judge
from kube_emulator.training_operator.pods import InitWait, Replica
from kube_emulator.training_operator.ports import held_port, number_of
from kube_emulator.work_queue import WorkQueue

JOBS = Resource("apis/kubeflow.org/v1", "pytorchjobs")


class Controller:
    """Reconciles jobs one after another, whenever they or their children change."""

    def __init__(self, client: Client, wait: InitWait) -> None:
        self._client = client
        self._wait = wait
        self._recorder = Recorder(client, "pytorchjob-controller")
        self._queue = WorkQueue(self._reconcile_key)
        self._ports: dict[str, socket.socket] = {}
        self._jobs = Informer(client, JOBS.path(), self._on_job)
        self._pods = Informer(client, PODS.path(), self._on_child)
        self._services = Informer(client, SERVICES.path(), self._on_child)

    async def run(self) -> None:
        """Watch and reconcile until cancelled; a failure of any part ends the controller."""
        async with asyncio.TaskGroup() as group:
            informers = (self._jobs, self._pods, self._services)
            for informer in informers:
                group.create_task(informer.run())
            group.create_task(self._queue.run(informers))

    async def _reconcile_key(self, key: str) -> None:
        job = self._jobs.items.get(key)
        if job and "deletionTimestamp" not in job["metadata"] and judge.is_ours(job):
            await self._reconcile(job, datetime.now(UTC))

    async def _reconcile(self, job: Object, now: datetime) -> None:
        """One pass: every write follows from the job and its children as the watches show them."""
        pods, services = self._children(job, self._pods), self._children(job, self._services)
        if judge.is_finished(job.get("status", {})):
            await self._report(job, judge.settled(job))
            await self._clean_up(job, pods, services, now)
            return
        status = judge.begun(job, now)
        if judge.is_suspended(job):
            await self._delete(job, pods, services)
            judge.suspend(job, status, now)
        elif judge.past_deadline(job, status, now):
            name = job["metadata"]["name"]
            text = (
                f"PyTorchJob {name} has failed because it was active longer than specified deadline"
            )
            judge.fail(job, status, text, now)
        else:
            judge.resume(job, status, now)
            await self._restart_by_exit_code(job, status, pods, now)
            await self._create_missing(job, pods, services)
            judge.judge(job, status, pods, now)
        await self._report(job, status)

    async def _create_missing(
        self, job: Object, pods: Sequence[Object], services: Sequence[Object]
    ) -> None:
        port = self._port(job, pods)
        have_pods = {one["metadata"]["name"] for one in pods}
        have_services = {one["metadata"]["name"] for one in services}
        for replica in build.replicas(job):
            name = replica.name(job)
            if name not in have_pods:
                await self._create(job, PODS, build.pod(job, replica, port, self._wait))
            if name not in have_services:
                await self._create(job, SERVICES, build.service(job, replica, port))

    async def _create(self, job: Object, resource: Resource, item: Object) -> None:
        meta, kind = item["metadata"], item["kind"]
        try:
            await self._client.create(resource.path(meta["namespace"]), item)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                text = f"Error creating: {error.message}"
                await self._recorder.event(job, "Warning", f"FailedCreate{kind}", text)
                raise
            found = await self._client.get(resource.path(meta["namespace"], meta["name"]))
            if not _is_owned(found, job):
                # an earlier job's child of the same name is still going away
                raise
            return
        text = f"Created {kind.lower()}: {meta['name']}"
        await self._recorder.event(job, "Normal", f"SuccessfulCreate{kind}", text)

    async def _restart_by_exit_code(
        self, job: Object, status: Object, pods: Sequence[Object], now: datetime
    ) -> None:
        """restartPolicy ExitCode: from 128 on tried again without end, others fail the job."""
        policies = {one.name(job): one for one in build.replicas(job)}
        for pod in pods:
            name = pod["metadata"]["name"]
            replica: Replica | None = policies.get(name)
            failed = pod.get("status", {}).get("phase") == "Failed"
            if not failed or replica is None or replica.restart_policy != "ExitCode":
                continue
            code = judge.exit_code(pod)
            if code >= judge.RETRYABLE_FROM:
                await self._delete(job, [pod], [])
                text = f"PyTorchJob {job['metadata']['name']} is restarting because {name} failed."
                judge.set_condition(status, "Restarting", "True", "PyTorchJobRestarting", text, now)
            else:
                text = f"{name} failed with exit code {code}"
                judge.fail(job, status, text, now, ended=False)

    async def _clean_up(
        self, job: Object, pods: Sequence[Object], services: Sequence[Object], now: datetime
    ) -> None:
        policy = job["spec"].get("runPolicy", {}).get("cleanPodPolicy", "None")
        active = [
            one for one in pods if one.get("status", {}).get("phase") in ("Running", "Pending")
        ]
        chosen = {"All": list(pods), "Running": active}.get(policy, [])
        names = {one["metadata"]["name"] for one in chosen}
        named = [one for one in services if one["metadata"]["name"] in names]
        await self._delete(job, chosen, named)
        meta, expiry = job["metadata"], judge.expiry(job)
        if expiry is None:
            return
        if now >= expiry:
            await self._client.delete(JOBS.path(meta["namespace"], meta["name"]), uid=meta["uid"])
            return
        self._queue.add_later(f"{meta['namespace']}/{meta['name']}", (expiry - now).total_seconds())

    async def _delete(
        self, job: Object, pods: Sequence[Object], services: Sequence[Object]
    ) -> None:
        for resource, items in ((PODS, pods), (SERVICES, services)):
            for item in items:
                meta = item["metadata"]
                if "deletionTimestamp" in meta:
                    continue
                path = resource.path(meta["namespace"], meta["name"])
                await self._client.delete(path, uid=meta["uid"])
                kind = "Pod" if resource is PODS else "Service"
                text = f"Deleted {kind.lower()}: {meta['name']}"
                await self._recorder.event(job, "Normal", f"SuccessfulDelete{kind}", text)

    async def _report(self, job: Object, status: Object) -> None:
        """Write the status if it has changed, and say so in events."""
        old, meta = job.get("status", {}), job["metadata"]
        if status == old:
            return
        path = JOBS.path(meta["namespace"], meta["name"], "status")
        body = {key: value for key, value in job.items() if key != "status"} | {"status": status}
        await self._client.replace(path, body)
        before = {(one["type"], one["status"]) for one in old.get("conditions", [])}
        for one in status["conditions"]:
            new = one["status"] == "True" and (one["type"], "True") not in before
            if new and one["type"] != "Created":
                kind = "Warning" if one["type"] == "Restarting" else "Normal"
                await self._recorder.event(job, kind, one["reason"], one["message"])

    def _children(self, job: Object, informer: Informer) -> list[Object]:
        return [one for one in informer.items.values() if _is_owned(one, job)]

    def _port(self, job: Object, pods: Sequence[Object]) -> int:
        """The job's rendezvous port: what its pods already use, else one that is free and held."""
        for pod in pods:
            env = pod["spec"]["containers"][0].get("env", [])
            used = [one["value"] for one in env if one["name"] == "MASTER_PORT"]
            if used:
                return int(used[-1])
        uid = job["metadata"]["uid"]
        if uid not in self._ports:
            self._ports[uid] = held_port()
        return number_of(self._ports[uid])

    def _on_job(self, old: Object | None, new: Object | None) -> None:
        if new is not None:
            self._queue.add(f"{new['metadata']['namespace']}/{new['metadata']['name']}")
        elif old is not None and (held := self._ports.pop(old["metadata"]["uid"], None)):
            held.close()

    def _on_child(self, old: Object | None, new: Object | None) -> None:
        meta = (new or old or {})["metadata"]
        for reference in meta.get("ownerReferences", []):
            if reference["kind"] == build.KIND:
                self._queue.add(f"{meta['namespace']}/{reference['name']}")


def _is_owned(item: Object, job: Object) -> bool:
    references = item["metadata"].get("ownerReferences", [])
    return any(one["uid"] == job["metadata"]["uid"] for one in references)
