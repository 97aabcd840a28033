"""The cluster's parent process: `python -m finetune_local.supervisor --dir DIR`.

Starts API server, collector, node, workloads, training-operator stand-in and S3, each with a log
in DIR/logs, and writes DIR/cluster.json once all of them serve. They end together: when one ends
by itself, when the supervisor is told to, and (the kernel sees to it) when it is killed.

With --kubeconfig, node and S3 alone: they join an API server that has its controllers.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import shutil
import signal
import sys
from collections.abc import Coroutine, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from finetune_local import s3
from finetune_local.images import our_images
from finetune_local.private_files import write_json
from kube_emulator.component import READY, log_to_stderr, until_signalled

log = logging.getLogger(__name__)

STOP_SECONDS = 8.0


class ComponentError(Exception):
    """A component ended by itself; the message names it and its log."""


@dataclass
class Supervisor:
    """Starts and ends the components of the cluster in `directory`."""

    directory: Path
    node_options: Sequence[str]
    kubeconfig: Path | None = None  # of an API server to join, whose controllers run
    _store: s3.S3Server = field(init=False)
    _processes: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)
    _drains: list[asyncio.Task[None]] = field(default_factory=list)

    async def run(self) -> None:
        """Run the cluster until cancelled.

        Raises ComponentError if a component has ended by itself, S3Error if S3 does not serve.
        """
        self._store = s3.prepare(self.directory / "s3")
        try:
            await self._start_all()
            log.info("ready")
            await self._first_end()
        finally:
            await self._stop_all()
            self._store.tidy()

    async def _start_all(self) -> None:
        store = self._store
        await self._start("s3", store.command, environment=store.environment, announces=False)
        joined = self.kubeconfig is not None
        kubeconfig = self.kubeconfig or await self._api_server()
        access = f"--kubeconfig={kubeconfig}"
        images = self.directory / "images.json"
        write_json(images, our_images())
        places = [
            f"--dir={self.directory / 'node'}",
            f"--mask={self.directory}",
            f"--images={images}",
        ]
        controllers = () if joined else ("collector", "workloads", "training_operator")
        starts = [
            *(self._python(name, access) for name in controllers),
            self._python("node", access, *places, *self.node_options),
            s3.wait_ready(store, self._log("s3"), lambda: self._processes["s3"].returncode),
        ]
        await _all(starts)
        state = {"kubeconfig": str(kubeconfig), "s3": asdict(store.access)}
        write_json(self.directory / "cluster.json", state)

    async def _api_server(self) -> Path:
        home = self.directory / "apiserver"
        await self._python("apiserver", "--port=0", f"--dir={home}")
        return home / "admin.kubeconfig"

    async def _python(self, module: str, *arguments: str) -> None:
        command = [sys.executable, "-m", f"kube_emulator.{module}", *arguments]
        await self._start(module, command, environment=dict(os.environ))

    async def _start(
        self,
        name: str,
        command: Sequence[str],
        *,
        environment: dict[str, str],
        announces: bool = True,
    ) -> None:
        """Return once the component serves, as it says. Raises ComponentError if it ends before."""
        setpriv = shutil.which("setpriv") or "setpriv"
        path = self._log(name)
        with path.open("wb") as file:
            process = await asyncio.create_subprocess_exec(
                *(setpriv, "--pdeathsig", "KILL", "--", *command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE if announces else file,
                stderr=file,
                env=environment,
                cwd=self.directory,
            )
        self._processes[name] = process
        if process.stdout is None:
            return
        while line := await process.stdout.readline():
            if line.decode().startswith(READY):
                self._drains.append(asyncio.create_task(_drain(process.stdout)))
                log.info("%s serves", name)
                return
        raise ComponentError(f"{name} did not start; see {path}")

    def _log(self, name: str) -> Path:
        return self.directory / "logs" / f"{name}.log"

    async def _first_end(self) -> None:
        waits = {
            asyncio.create_task(process.wait()): name for name, process in self._processes.items()
        }
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        names = sorted(waits[one] for one in done)
        raise ComponentError(f"{', '.join(names)} ended; see {self.directory / 'logs'}")

    async def _stop_all(self) -> None:
        """The node first, so that pods do not see the others go; S3 by SIGKILL, it is slow to
        say goodbye and its data goes anyway."""
        for drain in self._drains:
            drain.cancel()
        for name, process in self._processes.items():
            _signal(process, signal.SIGKILL if name == "s3" else signal.SIGTERM)
        waits = [asyncio.create_task(one.wait()) for one in self._processes.values()]
        if waits:
            await asyncio.wait(waits, timeout=STOP_SECONDS)
        for process in self._processes.values():
            _signal(process, signal.SIGKILL)
        await asyncio.gather(*waits)


async def _all(works: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Do all at once; the first failure ends the others and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            for work in works:
                group.create_task(work)
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)


async def _drain(stream: asyncio.StreamReader) -> None:
    """Read on, or the component would block on a full pipe."""
    while await stream.read(65536):
        pass


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--kubeconfig", type=Path)
    parser.add_argument("--node-option", action="append", default=[], metavar="OPTION")
    options = parser.parse_args()
    log_to_stderr()
    try:
        supervisor = Supervisor(options.dir, options.node_option, options.kubeconfig)
        asyncio.run(until_signalled(supervisor.run()))
    except (ComponentError, s3.S3Error) as error:
        log.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
