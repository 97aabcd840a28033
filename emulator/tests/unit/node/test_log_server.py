"""The kubelet's HTTPS port, asked as the API server asks it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest

from kube_emulator.node import log_server
from kube_emulator.node.containers.record import ContainerRecord, Kind, Running, Waiting

LINE = "2026-01-01T00:00:00.000000000Z stdout F "


class Bench:
    """A node with one pod, `p`, whose container `c` has run three times."""

    def __init__(self, home: Path) -> None:
        self.record = ContainerRecord("c", "alpine", Kind.MAIN, Running(None))  # type: ignore[arg-type]
        self.ended = asyncio.Event()
        self.ended.set()
        runner = SimpleNamespace(record=self.record, ended=self.ended)
        self.directory = home / "logs" / "ns_p_u"
        for run in (2, 9, 10):
            self.write(run, f"{LINE}run {run}\n{LINE}end\n")
        self.kubelet: Any = SimpleNamespace(
            node=SimpleNamespace(directory=home),
            workers={"u": SimpleNamespace(runners=[runner])},
            find_pod=self.find_pod,
        )

    def write(self, run: int, text: str) -> None:
        path = self.directory / "c" / f"{run}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(text)

    def find_pod(self, namespace: str, name: str) -> Any:
        meta = {"namespace": "ns", "name": "p", "uid": "u"}
        spec = {"containers": [{"name": "c"}], "initContainers": [{"name": "i"}]}
        return {"metadata": meta, "spec": spec} if (namespace, name) == ("ns", "p") else None


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


class Port:
    def __init__(self, session: aiohttp.ClientSession, port: int) -> None:
        self._session = session
        self._base = f"https://127.0.0.1:{port}/containerLogs"

    async def get(self, path: str) -> tuple[int, str]:
        async with self._session.get(f"{self._base}/{path}", ssl=False) as response:
            return response.status, await response.text()


@pytest.fixture
async def port(bench: Bench) -> AsyncIterator[Port]:
    runner, number = await log_server.serve(bench.kubelet, "127.0.0.1")
    async with aiohttp.ClientSession() as session:
        yield Port(session, number)
    await runner.cleanup()


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("", "run 10\nend\n"),
        ("?previous=true", "run 9\nend\n"),
        ("?tailLines=1", "end\n"),
        ("?limitBytes=3", "run"),
        ("?sinceSeconds=1", ""),
        ("?tailLines=1&timestamps=true", "2026-01-01T00:00:00.000000000Z end\n"),
        ("?follow=true", "run 10\nend\n"),
    ],
)
async def test_logs(port: Port, query: str, text: str) -> None:
    assert await port.get(f"ns/p/c{query}") == (200, text)


async def test_follow_ends_with_the_container(bench: Bench, port: Port) -> None:
    bench.ended.clear()
    following = asyncio.create_task(port.get("ns/p/c?follow=true&tailLines=0"))
    await asyncio.sleep(0.2)
    assert not following.done()
    bench.write(10, f"{LINE}late\n")
    bench.ended.set()
    assert await following == (200, "late\n")


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("ns/other/c", 404, 'pod "other" is not on this node'),
        ("elsewhere/p/c", 404, 'pod "p" is not on this node'),
        ("ns/p/c?tailLines=some", 400, "bad log query"),
        ("ns/p/i", 400, 'container "i" in pod "p" is waiting to start'),
        ("ns/p/d", 404, 'pod "p" has no container "d"'),
    ],
)
async def test_refusals(port: Port, path: str, status: int, words: str) -> None:
    found, text = await port.get(path)
    assert found == status
    assert words in text


async def test_what_has_not_run_says_why(bench: Bench, port: Port) -> None:
    for path in (bench.directory / "c").iterdir():
        path.unlink()
    bench.record.state = Waiting("ImagePullBackOff")
    words = 'container "c" in pod "p" is waiting to start: ImagePullBackOff'
    assert await port.get("ns/p/c") == (400, words)
    bench.write(0, f"{LINE}first\n")
    words = 'container "c" in pod "p" has no previous run'
    assert await port.get("ns/p/c?previous=true") == (400, words)


async def test_a_path_cannot_lead_elsewhere(bench: Bench, port: Port) -> None:
    bench.directory.parent.parent.joinpath("1.log").write_text(f"{LINE}secret\n")
    status, text = await port.get("ns/p/..%2F..%2F")
    assert status == 404
    assert "secret" not in text
