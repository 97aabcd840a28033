"""What a FineTuneJob costs until its PyTorchJob stands: requests, CPU and time.

The operator beside a naive one: Kopf's `on.create`, which makes the same seven children one after
the other. Each is a process of its own, and so is the API server, which counts requests and lets
every write wait for a round trip. Rounds of the two alternate; medians of the rounds count. Lists
and watches are not counted, nor is the time until the first of them.

    python benchmarks/operator_cost.py [--rounds 3] [--jobs 100] [--rate 20] [--json FILE]
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml
from aiohttp import ClientSession

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from finetune_api.job import KIND
from finetune_operator.job.resources import resources
from finetune_operator.plan.backends import BACKEND
from harness.api_server import NAMESPACE, UNCOUNTED
from harness.command_line import command_line, save
from support.operator.jobs import bot_job
from support.services.loopback import free_port

Json = Any
HARNESS = Path(__file__).parent / "harness"
JOBS = resources(BACKEND.kinds)[KIND].path(NAMESPACE)
CONTENDERS = {
    "finetune-operator": ["-m", "finetune_operator"],
    "naive on.create": [str(HARNESS / "naive_operator.py")],
}


@dataclass(frozen=True)
class Cost:
    """One round: per job requests and CPU milliseconds; milliseconds to a PyTorchJob."""

    requests: float
    cpu: float
    p50: float
    p99: float


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


async def measure(contender: list[str], jobs: int, rate: float) -> Cost:
    """Start server and contender, create the jobs at their rate, and count."""
    with tempfile.TemporaryDirectory() as directory:
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        config = Path(directory) / "kubeconfig"
        config.write_text(yaml.safe_dump(_kubeconfig(url)))
        environment = {
            "KUBECONFIG": str(config),
            "FINETUNE_TRAINER_IMAGE": "trainer:1",
            "FINETUNE_WATCH_NAMESPACES": NAMESPACE,
            "FINETUNE_BIND_PORT": str(free_port()),
            "FINETUNE_LOG_LEVEL": "WARNING",
        }
        with _process(str(HARNESS / "api_server.py"), str(port)):
            async with ClientSession(url, headers={UNCOUNTED: "1"}) as session:
                await _until(session, lambda state: True)
                with _process(*contender, **environment) as process:
                    await _until(session, lambda state: "finetunejobs" in state["watched"])
                    await asyncio.sleep(2)
                    return await _load(session, process.pid, jobs, rate)


async def _load(session: ClientSession, pid: int, jobs: int, rate: float) -> Cost:
    process = psutil.Process(pid)
    before = process.cpu_times()
    names = [f"job-{i}" for i in range(jobs)]
    for name in names:
        async with session.post(JOBS, json=_job(name)) as answer:
            assert answer.status == 201
        await asyncio.sleep(1 / rate)
    wanted = {f"pytorchjobs/{name}-a1" for name in names}
    await _until(session, lambda state: wanted <= state["times"].keys())
    await asyncio.sleep(3)  # what follows the submission belongs to its cost
    after = process.cpu_times()
    state = await _state(session)
    times = state["times"]
    delays = sorted(times[f"pytorchjobs/{n}-a1"] - times[f"finetunejobs/{n}"] for n in names)
    cpu = after.user + after.system - before.user - before.system
    return Cost(
        requests=sum(state["counts"].values()) / jobs,
        cpu=1e3 * cpu / jobs,
        p50=1e3 * statistics.median(delays),
        p99=1e3 * delays[int(0.99 * (jobs - 1))],
    )


async def _state(session: ClientSession) -> Json:
    async with session.get("/bench/state") as answer:
        return await answer.json()


async def _until(session: ClientSession, holds: Any, seconds: float = 120) -> None:
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


def _job(name: str) -> Json:
    job = bot_job(workers={"replicas": 2}, output={"uri": f"s3://adapters/{name}"})
    return {**job, "metadata": {"name": name, "namespace": NAMESPACE}}


def main() -> None:
    parser = command_line(__doc__, rounds=3)
    parser.add_argument("--jobs", type=int, default=100)
    parser.add_argument("--rate", type=float, default=20, help="jobs per second")
    arguments = parser.parse_args()
    rounds: dict[str, list[Cost]] = {name: [] for name in CONTENDERS}
    for _ in range(arguments.rounds):
        for name, contender in CONTENDERS.items():
            cost = measure(contender, arguments.jobs, arguments.rate)
            rounds[name].append(asyncio.run(cost))
    medians = {name: median(costs) for name, costs in rounds.items()}
    report(medians)
    save(medians, arguments.json)


def median(costs: list[Cost]) -> dict[str, float]:
    """Return the median of each of a Cost's numbers."""
    rows = [asdict(cost) for cost in costs]
    return {name: statistics.median(row[name] for row in rows) for name in rows[0]}


def report(medians: dict[str, dict[str, float]]) -> None:
    print(f"{'':18} {'requests':>9} {'CPU ms':>7} {'p50 ms':>7} {'p99 ms':>7}  per job")
    for name, values in medians.items():
        print(
            f"{name:18} {values['requests']:9.1f} {values['cpu']:7.1f} "
            f"{values['p50']:7.0f} {values['p99']:7.0f}"
        )


if __name__ == "__main__":
    main()
