"""One pod's life on this node, from volumes to the last status."""

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from kube_emulator.client import PODS, ApiError, Object
from kube_emulator.node.containers.container import ContainerRunner
from kube_emulator.node.containers.environment import PodFacts
from kube_emulator.node.containers.record import Kind, Terminated, Waiting
from kube_emulator.node.pods import volumes
from kube_emulator.node.pods.context import NodeContext
from kube_emulator.node.pods.setting import PodSetting
from kube_emulator.node.pods.status import Observation, pod_status
from kube_emulator.node.pods.volumes import MountError, Volumes
from kube_emulator.timestamps import now

log = logging.getLogger(__name__)

MOUNT_RETRY_SECONDS = 2.0
STATUS_RETRY_SECONDS = 0.5
LOST = "The container could not be located when the pod was terminated"
DEADLINE = (
    "DeadlineExceeded",
    "Pod was active on the node longer than the specified deadline",
)


class PodWorker:
    """Runs one pod; `pod` is kept as the API server last showed it."""

    def __init__(
        self, pod: Object, pod_ip: str, node: NodeContext, place_hosts: Callable[[], None]
    ) -> None:
        """`place_hosts` brings every pod's /etc/hosts up to date.

        A `pod` with a startTime already ran under a node that has died, and died with it.
        """
        self._place_hosts = place_hosts
        self.pod = pod
        self.pod_ip = pod_ip
        self.node = node
        self.started_at = now()
        self.sandbox_ready = False
        self.ended: tuple[str, str] | None = None
        self.finished = False
        self.leaving = False  # its directory is being removed
        self._dirty = asyncio.Event()
        self._reported: Object | None = None
        self._deleting = asyncio.Event()
        self._vanished = False
        self._lost = False
        self.setting = self._make_setting()
        self.runners = self._make_runners()
        if "startTime" in pod.get("status", {}):
            self._take_over()

    @property
    def uid(self) -> str:
        return str(self.pod["metadata"]["uid"])

    @property
    def ready(self) -> bool:
        """Whether every container that serves is ready: a Service may show this pod."""
        serving = [one for one in self.runners if one.record.kind is not Kind.INIT]
        return not self.finished and all(one.record.ready for one in serving)

    def observe(self, pod: Object) -> None:
        """Take note of a newer version of the object; a deletion ends the pod."""
        self.pod = pod
        if "deletionTimestamp" in pod["metadata"]:
            self._deleting.set()

    def vanish(self) -> None:
        """The object is gone, by force: end at once and report nothing."""
        self._vanished = True
        self._deleting.set()
        for runner in self.runners:
            runner.kill()

    async def run(self) -> None:
        """Run the pod until it is deleted; never raises but on cancellation."""
        async with asyncio.TaskGroup() as group:
            reporter = group.create_task(self._report_changes())
            try:
                await self._live()
                self.finished = True
                self._dirty.set()
                await self._deleting.wait()
            finally:
                reporter.cancel()
                for runner in self.runners:
                    runner.kill()
        if not self._vanished:
            await self._confirm_deletion()
        self.leaving = True
        await asyncio.to_thread(self._remove)

    async def _live(self) -> None:
        """Run the containers until they have ended, the deadline has passed or a deletion came."""
        if self._lost:
            return
        life = asyncio.create_task(self._run_containers())
        deletion = asyncio.create_task(self._deleting.wait())
        try:
            await asyncio.wait(
                {life, deletion}, timeout=self._deadline(), return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            deletion.cancel()
            outcome = life.done()
            life.cancel()
            await asyncio.gather(life, deletion, return_exceptions=True)
        if outcome:
            life.result()
        elif not self._deleting.is_set():
            self.ended = DEADLINE
            await self.setting.note("Normal", "DeadlineExceeded", DEADLINE[1])
        await self._stop(0 if self._vanished else self._grace())

    async def _run_containers(self) -> None:
        self._place_hosts()
        renewal = None
        try:
            await self._mount_volumes()
            self.sandbox_ready = True
            renewal = asyncio.create_task(self.setting.volumes.renew_tokens())
            if await self._initialize():
                main = [one for one in self.runners if one.record.kind is Kind.MAIN]
                for one in main:
                    one.record.state = Waiting("ContainerCreating")
                await asyncio.gather(*(one.run() for one in main))
        finally:
            if renewal is not None:
                renewal.cancel()
            for sidecar in self._sidecar_tasks:
                sidecar.cancel()
            await asyncio.gather(*self._sidecar_tasks, return_exceptions=True)

    async def _mount_volumes(self) -> None:
        self._dirty.set()
        while True:
            try:
                await self.setting.volumes.prepare()
            except MountError as error:
                await self.setting.note("Warning", "FailedMount", str(error))
                await asyncio.sleep(MOUNT_RETRY_SECONDS)
            else:
                return

    async def _initialize(self) -> bool:
        """Run init containers in order and start sidecars among them; False when one has failed."""
        for runner in self.runners:
            if runner.record.kind is Kind.SIDECAR:
                task = asyncio.create_task(runner.run())
                self._sidecar_tasks.append(task)
                await runner.started.wait()
            elif runner.record.kind is Kind.INIT:
                await runner.run()
                state = runner.record.state
                if isinstance(state, Terminated) and state.exit_code != 0:
                    return False
                runner.record.ready = True
        return True

    async def _stop(self, grace_seconds: float) -> None:
        """End main containers together, then sidecars in reverse order."""
        main = [one for one in self.runners if one.record.kind is not Kind.SIDECAR]
        await asyncio.gather(*(one.stop(grace_seconds) for one in main))
        sidecars = [one for one in self.runners if one.record.kind is Kind.SIDECAR]
        for sidecar in reversed(sidecars):
            await sidecar.stop(grace_seconds)

    def _grace(self) -> float:
        meta, spec = self.pod["metadata"], self.pod["spec"]
        default = spec.get("terminationGracePeriodSeconds", 30)
        return float(meta.get("deletionGracePeriodSeconds", default))

    def _deadline(self) -> float | None:
        seconds = self.pod["spec"].get("activeDeadlineSeconds")
        if seconds is None:
            return None
        end: datetime = self.started_at + timedelta(seconds=seconds)
        return max(0.0, (end - now()).total_seconds())

    async def _report_changes(self) -> None:
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            try:
                await self._report()
            except ApiError as error:
                log.info("status of %s: %s; trying again", self.pod["metadata"]["name"], error)
                await asyncio.sleep(STATUS_RETRY_SECONDS)
                self._dirty.set()

    async def _report(self) -> None:
        """Send the status if it differs from the last one sent."""
        seen = Observation(
            records=[one.record for one in self.runners],
            pod_ip=self.pod_ip,
            host_ip=self.node.host_ip,
            started_at=self.started_at,
            sandbox_ready=self.sandbox_ready,
            ended=self.ended,
            finished=self.finished,
        )
        shown = self.pod if self._reported is None else self.pod | {"status": self._reported}
        status = pod_status(shown, seen, now())
        if status == self._reported or self._vanished:
            return
        self._place_hosts()
        meta = self.pod["metadata"]
        path = PODS.path(meta["namespace"], meta["name"], "status")
        try:
            await self.node.client.patch(path, {"metadata": {"uid": self.uid}, "status": status})
        except ApiError as error:
            if error.status not in (404, 409):
                raise
        self._reported = status

    async def _confirm_deletion(self) -> None:
        """Tell the API server that nothing of the pod runs any more."""
        meta = self.pod["metadata"]
        while True:
            try:
                await self._report()
                await self.node.client.delete(
                    PODS.path(meta["namespace"], meta["name"]), uid=self.uid, grace_seconds=0
                )
            except ApiError as error:
                log.info("deletion of %s: %s; trying again", meta["name"], error)
                await asyncio.sleep(STATUS_RETRY_SECONDS)
            else:
                return

    def _remove(self) -> None:
        volumes.remove(self.setting.directory)
        volumes.remove(self.setting.logs)

    def _take_over(self) -> None:
        """Containers of a node that died are lost: they start again, or the pod has failed."""
        status = self.pod["status"]
        self.started_at = datetime.fromisoformat(status["startTime"])
        self._lost = self.pod["spec"].get("restartPolicy") == "Never"
        reported = status.get("initContainerStatuses", []) + status.get("containerStatuses", [])
        restarts = {one["name"]: one["restartCount"] for one in reported}
        for runner in self.runners:
            record = runner.record
            record.restarts = restarts.get(record.name, -1) + 1
            if self._lost:
                record.state = Terminated(137, "ContainerStatusUnknown", LOST, finished_at=now())

    def _make_setting(self) -> PodSetting:
        meta, node = self.pod["metadata"], self.node
        facts = PodFacts(self.pod, node.name, node.host_ip, self.pod_ip)
        directory = node.directory / "pods" / self.uid
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        fetch = node.fetcher(meta["namespace"])
        log_name = f"{meta['namespace']}_{meta['name']}_{self.uid}"

        async def note(kind: str, reason: str, message: str) -> None:
            await node.recorder.event(self.pod, kind, reason, message)

        return PodSetting(
            facts=facts,
            volumes=Volumes(
                node.client, fetch, facts, directory / "volumes", node.directory / "claims"
            ),
            fetch=fetch,
            catalogue=node.catalogue,
            base_environment=node.base_environment,
            directory=directory,
            logs=node.directory / "logs" / log_name,
            masked=node.masked,
            back_off_seconds=node.back_off_seconds,
            note=note,
            changed=self._dirty.set,
        )

    def _make_runners(self) -> list[ContainerRunner]:
        spec = self.pod["spec"]
        self._sidecar_tasks: list[asyncio.Task[None]] = []
        first = [
            (one, Kind.SIDECAR if one.get("restartPolicy") == "Always" else Kind.INIT)
            for one in spec.get("initContainers", [])
        ]
        kinds = first + [(one, Kind.MAIN) for one in spec["containers"]]
        runners = [ContainerRunner(one, kind, self.setting) for one, kind in kinds]
        if not first:
            for runner in runners:
                runner.record.state = Waiting("ContainerCreating")
        return runners
