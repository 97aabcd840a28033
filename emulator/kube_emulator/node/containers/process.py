"""One running container: its processes, seen from the node."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from kube_emulator.node.containers import logs
from kube_emulator.node.containers.privileges import Privileges
from kube_emulator.node.containers.sandbox import READY, Sandbox, tool

MEMORY_POLL_SECONDS = 0.5


class StartError(Exception):
    """The container could not be made or its command could not be executed."""


@dataclass
class ContainerProcess:
    """The sandbox's outer process and the main process (PID 1 inside) below it."""

    outer: asyncio.subprocess.Process
    main_pid: int | None
    environment: dict[str, str]
    privileges: Privileges
    oom_killed: bool = False
    _readers: list[asyncio.Task[None]] = field(default_factory=list)

    @classmethod
    async def start(
        cls,
        sandbox: Sandbox,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
    ) -> "ContainerProcess":
        """Start `arguments` in `sandbox` and return once they are being executed.

        Raises:
            StartError: the sandbox could not be set up.
        """
        ready, ready_child = os.pipe()
        try:
            outer = await asyncio.create_subprocess_exec(
                *sandbox.command(arguments),
                env=dict(environment),
                stdin=ready_child,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                # a terminal's Ctrl-C is the supervisor's business, not the pods'
                start_new_session=True,
            )
        except OSError as error:
            os.close(ready)
            raise StartError(f"exec: {error.strerror}") from error
        finally:
            os.close(ready_child)
        if outer.stdout is None or outer.stderr is None:
            raise StartError("the container's output is not connected")
        readers = [
            asyncio.create_task(logs.record(outer.stdout, "stdout", log)),
            asyncio.create_task(logs.record(outer.stderr, "stderr", log)),
        ]
        try:
            complaint = await _complaint(ready)
        except asyncio.CancelledError:
            # nobody else knows this process yet
            outer.kill()
            raise
        main = _only_child(outer.pid)
        container = cls(outer, main, dict(environment), sandbox.privileges, _readers=readers)
        if complaint is not None:
            await container.wait()
            raise StartError(complaint)
        return container

    async def wait(self) -> int:
        """The exit code, 128 + n for signal n, once all output is in the log."""
        code = await self.outer.wait()
        await asyncio.gather(*self._readers)
        return code if code >= 0 else 128 - code

    @property
    def running(self) -> bool:
        return self.outer.returncode is None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the main process; like PID 1 everywhere, it ignores what it does not
        handle, SIGKILL excepted."""
        pid = self.main_pid if self.main_pid is not None else self.outer.pid
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    async def stop(self, grace_seconds: float) -> None:
        """SIGTERM, and SIGKILL when the main process outlives the grace period."""
        if grace_seconds > 0:
            self.signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.wait_exit(), grace_seconds)
        self.signal(signal.SIGKILL)
        await self.wait_exit()

    async def execute(self, command: Sequence[str]) -> str | None:
        """Run a command beside the main process: None when it exits 0, else its output."""
        if self.main_pid is None:
            return "the container has ended"
        who = self.privileges
        limits = who.options_without_capabilities if who.user else who.options
        enter = ["--preserve-credentials", "--user", "--target"]
        # the inner one enters the namespaces with what the outer one, as their owner, may do
        child = await asyncio.create_subprocess_exec(
            *(tool("nsenter"), *enter, str(self.outer.pid), "--", tool("nsenter"), *enter),
            *(str(self.main_pid), "--mount", "--uts", "--pid"),
            *(f"--root=/proc/{self.main_pid}/root", "--wd", "--"),
            *(tool("setpriv"), *limits, "--", *command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=self.environment,
        )
        try:
            output, _ = await child.communicate()
        except asyncio.CancelledError:
            child.kill()
            raise
        return None if child.returncode == 0 else output.decode(errors="replace")[-1024:]

    async def wait_exit(self) -> None:
        await self.outer.wait()

    async def limit_memory(self, limit: int) -> None:
        """Kill the main process when its family outgrows `limit` bytes.

        No cgroup is needed; a burst between two looks goes unseen.
        """
        while self.running:
            if self.memory() > limit:
                self.oom_killed = True
                self.signal(signal.SIGKILL)
                return
            await asyncio.sleep(MEMORY_POLL_SECONDS)

    def memory(self) -> int:
        """Bytes that a memory cgroup would charge: anonymous and shared pages of all processes."""
        try:
            family = psutil.Process(self.outer.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return 0
        return sum(_charged(process.pid) for process in family)


def _charged(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(
        int(line.split()[1]) * 1024
        for line in status.splitlines()
        if line.startswith(("RssAnon:", "RssShmem:"))
    )


async def _complaint(fd: int) -> str | None:
    """What the sandbox wrote to the pipe before it died; None once it is ready."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(fd, "rb", buffering=0)
    )
    lines: list[str] = []
    try:
        async for line in reader:
            text = line.decode(errors="replace").strip()
            if text == READY:
                return None
            lines.append(text)
    finally:
        transport.close()
    return "\n".join(lines)


def _only_child(pid: int) -> int | None:
    try:
        children = psutil.Process(pid).children()
    except psutil.NoSuchProcess:
        return None
    return children[0].pid if children else None
