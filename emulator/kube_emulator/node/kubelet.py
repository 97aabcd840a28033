"""The node's agent: watches pods, keeps one worker for each of its own."""

import asyncio
import logging
import socket
from collections.abc import Iterator
from pathlib import Path

from kube_emulator.client import NODES, PODS, SERVICES, Client, Informer, Object
from kube_emulator.events import Recorder
from kube_emulator.node.pods import volumes
from kube_emulator.node.pods.context import NodeContext
from kube_emulator.node.pods.hosts import Place, hosts_file
from kube_emulator.node.pods.pod import PodWorker
from kube_emulator.node.scheduling import Scheduler, is_terminal

log = logging.getLogger(__name__)

_KUBELET_PORT = 10250


class Kubelet:
    """Runs this node's pods until cancelled; they die with it."""

    def __init__(self, node: NodeContext) -> None:
        self.node = node
        self.workers: dict[str, PodWorker] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._client: Client = node.client
        self._subnet, self._claim = _claim_subnet()
        self._pods = Informer(node.client, PODS.path(), self._on_pod)
        self._services = Informer(node.client, SERVICES.path(), self._on_service)
        self._nodes = Informer(
            node.client, NODES.path(), self._on_node, f"metadata.name={node.name}"
        )
        self._scheduler = Scheduler(
            Recorder(node.client, "default-scheduler"), node.name, self._pods.items
        )

    async def run(self) -> None:
        """Watch and schedule; a failure of any part ends the node."""
        try:
            async with asyncio.TaskGroup() as group:
                for part in (self._services, self._nodes, self._pods, self._scheduler):
                    group.create_task(part.run())
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)
            self._claim.close()

    def place_hosts(self) -> None:
        """Write the /etc/hosts of every pod where it has changed.

        In place: containers hold the file itself as a mount.
        """
        places = {
            uid: Place(worker.pod, worker.pod_ip, worker.ready)
            for uid, worker in self.workers.items()
        }
        for uid, worker in self.workers.items():
            if worker.leaving:
                continue
            text = hosts_file(
                places[uid],
                worker.setting.hostname,
                self._services.items.values(),
                list(places.values()),
            )
            path = worker.setting.hosts_file
            if not (path.exists() and path.read_text() == text):
                path.write_text(text)

    def _on_service(self, _old: Object | None, _new: Object | None) -> None:
        self.place_hosts()

    def _on_node(self, _old: Object | None, new: Object | None) -> None:
        self._scheduler.node = new
        self._scheduler.wake()

    def _on_pod(self, old: Object | None, new: Object | None) -> None:
        self._scheduler.wake()
        if old and (new is None or old["metadata"]["uid"] != new["metadata"]["uid"]):
            self._vanished(old)
        if new and new["spec"].get("nodeName") == self.node.name:
            self._own(new)

    def _own(self, pod: Object) -> None:
        uid = pod["metadata"]["uid"]
        if worker := self.workers.get(uid):
            worker.observe(pod)
        elif is_terminal(pod):
            if "deletionTimestamp" in pod["metadata"]:
                self._start(f"deletion of {uid}", self._confirm_deletion(pod))
        else:
            worker = PodWorker(pod, self._free_address(), self.node, self.place_hosts)
            worker.observe(pod)
            self.workers[uid] = worker
            self._start(uid, self._work(worker))

    def _vanished(self, pod: Object) -> None:
        uid = pod["metadata"]["uid"]
        if worker := self.workers.get(uid):
            worker.vanish()
        elif pod["spec"].get("nodeName") == self.node.name:
            for directory in self._directories(pod):
                volumes.remove(directory)

    async def _work(self, worker: PodWorker) -> None:
        try:
            await worker.run()
        finally:
            del self.workers[worker.uid]
            self.place_hosts()

    async def _confirm_deletion(self, pod: Object) -> None:
        meta = pod["metadata"]
        path = PODS.path(meta["namespace"], meta["name"])
        await self._client.delete(path, uid=meta["uid"], grace_seconds=0)

    def _start(self, key: str, work: "asyncio._CoroutineLike[None]") -> None:
        if key in self._tasks:
            work.close()
            return
        task = asyncio.get_running_loop().create_task(work, name=key)
        self._tasks[key] = task
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task.get_name(), None)
        if not task.cancelled() and (error := task.exception()):
            log.error("%s failed", task.get_name(), exc_info=error)

    def _directories(self, pod: Object) -> Iterator[Path]:
        meta = pod["metadata"]
        yield self.node.directory / "pods" / meta["uid"]
        yield self.node.directory / "logs" / f"{meta['namespace']}_{meta['name']}_{meta['uid']}"

    def _free_address(self) -> str:
        taken = {worker.pod_ip for worker in self.workers.values()}
        return next(
            address
            for low in range(1, 255)
            if (address := f"127.77.{self._subnet}.{low}") not in taken
        )

    def find_pod(self, namespace: str, name: str) -> Object | None:
        """A pod of this node by name."""
        pod = self._pods.items.get(f"{namespace}/{name}")
        return pod if pod and pod["spec"].get("nodeName") == self.node.name else None


def _claim_subnet() -> tuple[int, socket.socket]:
    """Return n of 127.77.n.0/24, and the socket that keeps it from the other nodes of this host:
    pods of two that had the same address would answer each other's probes. Raises OSError if every
    one is taken."""
    for number in range(255):
        claim = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            claim.bind((f"127.77.{number}.255", _KUBELET_PORT))
        except OSError:
            claim.close()
        else:
            return number, claim
    raise OSError("255 nodes run on this host: no subnet is left for this one's pods")
