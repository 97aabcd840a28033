"""One container's life: pull, configure, start, probe, end, and again as its policy says."""

import asyncio
import contextlib
import os
import shutil
import signal
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path

from kube_emulator.client import Object
from kube_emulator.node.containers import environment, logs, probes
from kube_emulator.node.containers.environment import ConfigError, expand
from kube_emulator.node.containers.images import Image, UnknownImageError
from kube_emulator.node.containers.privileges import Privileges
from kube_emulator.node.containers.probes import Probe
from kube_emulator.node.containers.process import ContainerProcess, StartError
from kube_emulator.node.containers.record import (
    ContainerRecord,
    Kind,
    Running,
    Terminated,
    Waiting,
)
from kube_emulator.node.containers.resources import memory_limit, thread_limit
from kube_emulator.node.containers.sandbox import Mount, Sandbox
from kube_emulator.node.containers.surroundings import sandbox_of
from kube_emulator.node.pods.setting import PodSetting
from kube_emulator.timestamps import now

START_ERROR_CODE = 128
MESSAGE_BYTES = 4096
FALLBACK_BYTES, FALLBACK_LINES = 2048, 80
LONGEST_BACK_OFF = 300.0
BACK_OFF_RESET_SECONDS = 600.0


Start = Callable[[Sandbox, list[str], dict[str, str], Path], Awaitable[ContainerProcess]]


class ContainerRunner:
    """Runs one container of a pod; `record` says at any time where it stands."""

    def __init__(
        self,
        spec: Object,
        kind: Kind,
        setting: PodSetting,
        start: Start = ContainerProcess.start,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._start_process, self._sleep = start, sleep
        self.spec = spec
        self.setting = setting
        self.record = ContainerRecord(spec["name"], spec["image"], kind)
        self.process: ContainerProcess | None = None
        self.started = asyncio.Event()
        self.ended = asyncio.Event()

    def log_path(self, restarts: int) -> Path:
        return self.setting.logs / str(self.spec["name"]) / f"{restarts}.log"

    async def run(self) -> None:
        """Run until the container has ended for good: `record.state` is then Terminated."""
        delay = self.setting.back_off_seconds
        while True:
            await self._run_once()
            ended = self.record.state
            if not isinstance(ended, Terminated) or not self._restarts(ended.exit_code):
                return
            if ended.started_at and ended.finished_at:
                lived = (ended.finished_at - ended.started_at).total_seconds()
                delay = self.setting.back_off_seconds if lived > BACK_OFF_RESET_SECONDS else delay
            await self._back_off(ended, delay)
            delay = min(delay * 2, LONGEST_BACK_OFF)

    async def stop(self, grace_seconds: float) -> None:
        """End the container now; the caller has cancelled `run`."""
        if self.process is not None and self.process.running:
            await self.setting.note("Normal", "Killing", f"Stopping container {self.spec['name']}")
            await self.process.stop(grace_seconds)
        if self.process is not None and isinstance(self.record.state, Running):
            self._settle(self._terminated(await self.process.wait()))

    def kill(self) -> None:
        """SIGKILL the main process, without waiting."""
        if self.process is not None:
            self.process.signal(signal.SIGKILL)

    def _restarts(self, exit_code: int) -> bool:
        if self.record.kind is Kind.SIDECAR:
            return True
        policy = self.setting.pod["spec"].get("restartPolicy", "Always")
        if self.record.kind is Kind.INIT or policy == "OnFailure":
            return exit_code != 0 and policy != "Never"
        return bool(policy == "Always")

    async def _run_once(self) -> None:
        image = await self._pull()
        try:
            process = await self._start(image)
        except StartError as error:
            await self.setting.note("Warning", "Failed", f"Error: {error}")
            self._settle(Terminated(START_ERROR_CODE, "StartError", str(error), now(), now()))
            return
        self.process = process
        # for whoever wants to kill it from outside
        own = self.setting.container_directory(self.spec["name"])
        (own / "pid").write_text(str(process.main_pid))
        self.record.container_id = f"emulated://{uuid.uuid4().hex}"
        self.record.state = Running(now())
        self.ended.clear()
        if "startupProbe" not in self.spec:
            self._has_started()
        self.setting.changed()
        await self.setting.note("Normal", "Started", f"Started container {self.spec['name']}")
        await self._attend(process)
        self._settle(self._terminated(await process.wait()))

    async def _pull(self) -> Image:
        """Find the image, waiting with growing pauses for it to become known."""
        reference, delay = self.spec["image"], self.setting.back_off_seconds
        while True:
            try:
                return self.setting.catalogue.resolve(reference)
            except UnknownImageError as error:
                await self.setting.note(
                    "Warning", "Failed", f'Failed to pull image "{reference}": {error}'
                )
                await self.setting.note("Warning", "Failed", "Error: ErrImagePull")
                self._wait("ErrImagePull", str(error))
                await self._sleep(min(1.0, delay))
                back_off = f'Back-off pulling image "{reference}"'
                await self.setting.note("Normal", "BackOff", back_off)
                self._wait("ImagePullBackOff", f"{back_off}: ErrImagePull: {error}")
                await self._sleep(delay)
                delay = min(delay * 2, LONGEST_BACK_OFF)

    async def _start(self, image: Image) -> ContainerProcess:
        """Start the container, waiting for configuration that is missing.

        Raises:
            StartError: the command cannot be executed.
        """
        while True:
            try:
                privileges = Privileges.of(self.setting.pod, self.spec, image)
                limit = thread_limit(self.spec)
                named = {"HOSTNAME": self.setting.hostname}
                base = self.setting.base_environment | named | limit | image.environment
                variables = await environment.resolve(
                    self.spec, base, self.setting.facts, self.setting.fetch
                )
                variables.setdefault("HOME", privileges.home)
                mounts = self.setting.volumes.mounts(self.spec, variables)
                break
            except ConfigError as error:
                self._wait("CreateContainerConfigError", str(error))
                await self.setting.note("Warning", "Failed", f"Error: {error}")
                await self._sleep(min(2.0, self.setting.back_off_seconds))
        arguments = self._arguments(image, variables)
        if not _executable(arguments[0], variables.get("PATH", os.defpath), mounts):
            raise StartError(
                f'exec: "{arguments[0]}": executable file not found in $PATH'
                if "/" not in arguments[0]
                else f'exec: "{arguments[0]}": stat {arguments[0]}: no such file or directory'
            )
        log = self.log_path(self.record.restarts)
        log.parent.mkdir(parents=True, exist_ok=True)
        sandbox = sandbox_of(self.spec, self.setting, image, privileges, mounts)
        return await self._start_process(sandbox, arguments, variables, log)

    def _arguments(self, image: Image, variables: dict[str, str]) -> list[str]:
        command = [expand(one, variables) for one in self.spec.get("command", [])]
        arguments = [expand(one, variables) for one in self.spec.get("args", [])]
        return [*(command or image.entrypoint), *arguments]

    async def _attend(self, process: ContainerProcess) -> None:
        """Probe and watch the memory until the main process ends."""
        helpers = [asyncio.create_task(self._probe(process))]
        if limit := memory_limit(self.spec):
            helpers.append(asyncio.create_task(process.limit_memory(limit)))
        try:
            await process.wait_exit()
        finally:
            for helper in helpers:
                helper.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)

    def _has_started(self) -> None:
        self.record.started = True
        self.record.ready = "readinessProbe" not in self.spec
        self.started.set()

    async def _probe(self, process: ContainerProcess) -> None:
        spec = self.spec
        if "startupProbe" in spec:
            note = self._unhealthy("Startup")
            if not await probes.until_started(self._probe_of("startupProbe"), process, note):
                await self._kill_unhealthy(process, "startup")
                return
            self._has_started()
            self.setting.changed()
        async with asyncio.TaskGroup() as group:
            if "readinessProbe" in spec:
                readiness = self._probe_of("readinessProbe")
                note = self._unhealthy("Readiness")
                group.create_task(
                    probes.follow_readiness(readiness, process, note, self._set_ready)
                )
            if "livenessProbe" in spec:
                group.create_task(self._until_dead(process))

    async def _until_dead(self, process: ContainerProcess) -> None:
        liveness = self._probe_of("livenessProbe")
        await probes.until_dead(liveness, process, self._unhealthy("Liveness"))
        await self._kill_unhealthy(process, "liveness")

    async def _kill_unhealthy(self, process: ContainerProcess, probe: str) -> None:
        name = self.spec["name"]
        message = f"Container {name} failed {probe} probe, will be restarted"
        await self.setting.note("Normal", "Killing", message)
        await process.stop(self.setting.pod["spec"].get("terminationGracePeriodSeconds", 30))

    def _probe_of(self, name: str) -> Probe:
        return Probe(self.spec[name], self.spec, self.setting.facts.pod_ip)

    def _unhealthy(self, probe: str) -> Callable[[str], Awaitable[None]]:
        async def note(trouble: str) -> None:
            await self.setting.note("Warning", "Unhealthy", f"{probe} probe failed: {trouble}")

        return note

    def _set_ready(self, ready: bool) -> None:
        self.record.ready = ready
        self.setting.changed()

    async def _back_off(self, ended: Terminated, delay: float) -> None:
        name, meta = self.spec["name"], self.setting.pod["metadata"]
        where = f"container={name} pod={meta['name']}_{meta['namespace']}({meta['uid']})"
        self.record.last = ended
        self._wait("CrashLoopBackOff", f"back-off {delay:g}s restarting failed {where}")
        text = f"Back-off restarting failed container {name} in pod {meta['name']}"
        await self.setting.note("Warning", "BackOff", text)
        await self._sleep(delay)
        self.record.restarts += 1

    def _terminated(self, exit_code: int) -> Terminated:
        state, process = self.record.state, self.process
        oom = process is not None and process.oom_killed
        reason = "OOMKilled" if oom else "Error" if exit_code else "Completed"
        started = state.started_at if isinstance(state, Running) else None
        return Terminated(
            exit_code, reason, self._message(exit_code), started, now(), self.record.container_id
        )

    def _message(self, exit_code: int) -> str:
        own = self.setting.container_directory(self.spec["name"]) / "termination-log"
        with contextlib.suppress(FileNotFoundError), own.open("rb") as file:
            if data := file.read(MESSAGE_BYTES):
                return data.decode(errors="replace")
        if exit_code and self.spec.get("terminationMessagePolicy") == "FallbackToLogsOnError":
            return logs.tail(self.log_path(self.record.restarts), FALLBACK_LINES, FALLBACK_BYTES)
        return ""

    def _wait(self, reason: str, message: str) -> None:
        self.record.state = Waiting(reason, message)
        self.setting.changed()

    def _settle(self, state: Terminated) -> None:
        self.record.state = state
        self.record.ready = self.record.started = False
        self.started.clear()
        self.ended.set()
        self.setting.changed()


def _executable(command: str, path: str, mounts: list[Mount]) -> bool:
    """Whether the command can be executed; what lies in a volume is left to the container."""
    if any(mount.target and command.startswith(f"{mount.target}/") for mount in mounts):
        return True
    return shutil.which(command, path=path) is not None
