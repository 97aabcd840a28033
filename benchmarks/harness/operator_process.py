"""An operator and the API server that it works on, each a process of its own; what it costs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml
from aiohttp import ClientSession

from harness.api_server import UNCOUNTED
from harness.population import IMAGE, NAMESPACE
from support.services.loopback import free_port

Json = Any
_HARNESS = Path(__file__).parent
CONTENDERS = {
    "finetune-operator": ["-m", "finetune_operator"],
    "naive on.create": [str(_HARNESS / "naive_operator.py")],
}
_REST_SECONDS = 3.0  # without work, after which nothing more is to come
_REST_CPU = 0.15  # of a second, that an operator at rest may use meanwhile


@dataclass(frozen=True)
class Bench:
    """A contender at work; its requests are counted by the server, and its CPU by the kernel."""

    session: ClientSession
    process: psutil.Process

    async def state(self) -> Json:
        return await _state(self.session)

    async def until(self, holds: Callable[[Json], bool]) -> None:
        await _until(self.session, holds)

    def cpu(self) -> float:
        """Return the CPU seconds since it was started."""
        times = self.process.cpu_times()
        return times.user + times.system

    def peak(self) -> float:
        """Return the most memory that it ever held, in MiB."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) / 1024

    async def rest(self) -> None:
        """Wait until it has done what there is to do."""
        while True:
            before = self.cpu()
            await asyncio.sleep(_REST_SECONDS)
            if self.cpu() - before < _REST_CPU:
                return


@contextlib.asynccontextmanager
async def started(contender: str, running: int = 0) -> AsyncIterator[Bench]:
    """Start a server that has so many running jobs, then the contender, and wait for its watch."""
    with tempfile.TemporaryDirectory() as directory:
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        config = Path(directory) / "kubeconfig"
        config.write_text(yaml.safe_dump(_kubeconfig(url)))
        environment = {
            "KUBECONFIG": str(config),
            "FINETUNE_TRAINER_IMAGE": IMAGE,
            "FINETUNE_WATCH_NAMESPACES": NAMESPACE,
            "FINETUNE_BIND_PORT": str(free_port()),
            "FINETUNE_LOG_LEVEL": "WARNING",
        }
        with _process(str(_HARNESS / "api_server.py"), str(port), str(running)):
            async with ClientSession(url, headers={UNCOUNTED: "1"}) as session:
                await _until(session, lambda state: True)
                with _process(*CONTENDERS[contender], **environment) as process:
                    await _until(session, lambda state: "finetunejobs" in state["watched"])
                    yield Bench(session, psutil.Process(process.pid))


@contextlib.contextmanager
def _process(*arguments: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, *arguments],
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()  # nothing of it is kept, and open watches would hold up its end
        process.wait()


async def _state(session: ClientSession) -> Json:
    async with session.get("/bench/state") as answer:
        return await answer.json()


async def _until(session: ClientSession, holds: Callable[[Json], bool], seconds: int = 600) -> None:
    async with asyncio.timeout(seconds):
        while True:
            with contextlib.suppress(OSError):
                if holds(await _state(session)):
                    return
            await asyncio.sleep(0.1)


def _kubeconfig(url: str) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "bench",
        "clusters": [{"name": "bench", "cluster": {"server": url}}],
        "users": [{"name": "bench", "user": {"token": "bench"}}],
        "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
    }
