"""What a FineTuneJob costs until its PyTorchJob stands: requests, CPU and time.

The operator beside a naive one: Kopf's `on.create`, which makes the same seven children one after
the other. Each is a process of its own, and so is the API server, which counts requests and lets
every write wait for a round trip. Rounds of the two alternate; medians of the rounds count. Lists
and watches are not counted, nor is the time until the first of them.

    python benchmarks/operator_cost.py [--rounds 3] [--jobs 100] [--rate 20] [--json FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import copy
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import kopf
import psutil
import yaml
from aiohttp import ClientSession, web

from finetune_api.job import KIND
from finetune_operator.backends.pytorchjob import PyTorchJob
from finetune_operator.cluster import Cluster
from finetune_operator.decide import decide
from finetune_operator.observe import Observed
from finetune_operator.parse import Parser
from finetune_operator.plan.attempt import attempt_objects
from finetune_operator.resources import RESOURCES
from finetune_operator.settings import Settings

Json = Any
NAMESPACE = "team"
ROUND_TRIP_SECONDS = 0.02
JOBS = RESOURCES[KIND].path(NAMESPACE)
KOPF_NEEDS = {"namespaces": "Namespace", "customresourcedefinitions": "CustomResourceDefinition"}


class Server:
    """The part of an API server that the two operators use: create, get, patch, list, watch."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Json]] = {}
        self.watchers: dict[str, list[asyncio.Queue[Json]]] = {}
        self.counts: Counter[str] = Counter()
        self.times: dict[str, float] = {}
        self.version = 0

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/bench/state", self.state)
        app.router.add_get("/api", _reply({"versions": ["v1"]}))
        app.router.add_get("/apis", _reply({"groups": _groups()}))
        for api, resources in _served().items():
            app.router.add_get(api, _reply({"resources": resources}))
        app.router.add_route("*", "/{tail:.*}", self.handle)
        return app

    async def state(self, _: web.Request) -> web.Response:
        watched = [path for path, queues in self.watchers.items() if queues]
        return web.json_response(
            {"counts": dict(self.counts), "times": self.times, "watched": watched}
        )

    async def handle(self, request: web.Request) -> web.StreamResponse:
        parts = request.path.removesuffix("/status").split("/")
        plural, name = parts[parts.index(NAMESPACE) + 1], parts[parts.index(NAMESPACE) + 2 :]
        if request.method == "GET" and not name:
            watching = request.query.get("watch") == "true"
            return await (self.watch(request, plural) if watching else self.list(plural))
        if "X-Bench" not in request.headers:
            self.counts[f"{request.method} {plural}"] += 1
            await asyncio.sleep(ROUND_TRIP_SECONDS)
        stored = self.objects.setdefault(plural, {})
        if request.method == "POST":
            return self.store(plural, await request.json(), "ADDED", 201)
        if not name or name[0] not in stored:
            return web.json_response({"reason": "NotFound", "message": "no"}, status=404)
        if request.method == "PATCH":
            body = _merge(stored[name[0]], await request.json())
            return self.store(plural, body, "MODIFIED", 200)
        return web.json_response(stored[name[0]])

    def store(self, plural: str, body: Json, event: str, code: int) -> web.Response:
        metadata = body["metadata"]
        self.version += 1
        metadata["resourceVersion"] = str(self.version)
        metadata.setdefault("uid", str(uuid.uuid4()))
        metadata.setdefault("generation", 1)
        metadata.setdefault("namespace", NAMESPACE)
        metadata.setdefault("name", str(uuid.uuid4()))
        metadata.setdefault("creationTimestamp", "2026-01-01T00:00:00Z")
        self.objects.setdefault(plural, {})[metadata["name"]] = body
        if event == "ADDED":
            self.times[f"{plural}/{metadata['name']}"] = time.monotonic()
        for queue in self.watchers.get(plural, []):
            queue.put_nowait({"type": event, "object": copy.deepcopy(body)})
        return web.json_response(body, status=code)

    async def list(self, plural: str) -> web.Response:
        items = list(self.objects.get(plural, {}).values())
        metadata = {"resourceVersion": str(self.version)}
        return web.json_response({"metadata": metadata, "items": items})

    async def watch(self, request: web.Request, plural: str) -> web.StreamResponse:
        queue: asyncio.Queue[Json] = asyncio.Queue()
        response = web.StreamResponse()
        await response.prepare(request)
        self.watchers.setdefault(plural, []).append(queue)
        try:
            while True:
                await response.write(json.dumps(await queue.get()).encode() + b"\n")
        finally:
            self.watchers[plural].remove(queue)


def _reply(body: Json) -> Any:
    async def reply(_: web.Request) -> web.Response:
        return web.json_response(body)

    return reply


def _merge(old: Json, patch: Json) -> Json:
    """RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    result = dict(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merge(result.get(key), value)
    return result


def _served() -> dict[str, list[Json]]:
    """Return what discovery says of each API version."""
    found: dict[str, list[Json]] = {"/apis/apiextensions.k8s.io/v1": []}
    for kind, resource in RESOURCES.items():
        api = f"/{'apis' if resource.group else 'api'}/{resource.api_version}"
        found.setdefault(api, []).append(_resource(resource.plural, kind, True))
        if kind == KIND:
            found[api].append(_resource(f"{resource.plural}/status", kind, True))
    for plural, kind in KOPF_NEEDS.items():
        api = "/api/v1" if kind == "Namespace" else "/apis/apiextensions.k8s.io/v1"
        found[api].append(_resource(plural, kind, False))
    return found


def _resource(plural: str, kind: str, namespaced: bool) -> Json:
    verbs = ["get", "list", "watch", "create", "patch", "delete"]
    named = {"name": plural, "singularName": plural.split("/")[0][:-1], "kind": kind}
    return {**named, "namespaced": namespaced, "verbs": verbs}


def _groups() -> list[Json]:
    versions = [api.removeprefix("/apis/") for api in _served() if api.startswith("/apis/")]
    return [
        {
            "name": version.split("/")[0],
            "versions": [{"groupVersion": version, "version": version.split("/")[1]}],
            "preferredVersion": {"groupVersion": version, "version": version.split("/")[1]},
        }
        for version in versions
    ]


# -- the naive operator -------------------------------------------------------------------------


async def naive() -> None:
    """Make a job's children when Kopf says that it was created, and say so in status."""
    cluster = await Cluster.connect()
    registry, settings = kopf.OperatorRegistry(), Settings(trainer_image="trainer:1")
    parser, backend = Parser(), PyTorchJob()

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        return kopf.ConnectionInfo(server=cluster.configuration.host)

    @kopf.on.create("finetune.dev", "v1alpha1", "finetunejobs", registry=registry)
    async def created(body: kopf.Body, **_: Any) -> dict[str, str]:
        job = parser.parse(json.loads(json.dumps(dict(body))))
        attempt = decide(job, Observed(), datetime.now(UTC), settings).run
        assert attempt is not None
        objects = attempt_objects(job, attempt, backend, settings.heartbeat_seconds)
        for child in (*objects.prepared, objects.workload):
            await cluster.create(child)
        return {"state": "Submitted"}

    kopf_settings = kopf.OperatorSettings()
    kopf_settings.scanning.disabled = True
    await kopf.operator(
        registry=registry, settings=kopf_settings, standalone=True, namespaces=[NAMESPACE]
    )


# -- measuring ----------------------------------------------------------------------------------


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


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def measure(contender: list[str], jobs: int, rate: float) -> Cost:
    """Start server and contender, create the jobs at their rate, and count."""
    with tempfile.TemporaryDirectory() as directory:
        port = _free_port()
        url = f"http://127.0.0.1:{port}"
        config = Path(directory) / "kubeconfig"
        config.write_text(yaml.safe_dump(_kubeconfig(url)))
        environment = {
            "KUBECONFIG": str(config),
            "FINETUNE_TRAINER_IMAGE": "trainer:1",
            "FINETUNE_WATCH_NAMESPACES": NAMESPACE,
            "FINETUNE_BIND_PORT": str(_free_port()),
            "FINETUNE_LOG_LEVEL": "WARNING",
        }
        with _process(__file__, "--serve", str(port)):
            async with ClientSession(url, headers={"X-Bench": "1"}) as session:
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
    return {
        "apiVersion": "finetune.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "model": {"uri": "hf://o/m"},
            "data": {"train": [{"uri": "s3://d/a.jsonl"}]},
            "output": {"uri": f"s3://adapters/{name}"},
            "workers": {"replicas": 2},
        },
    }


CONTENDERS = {
    "finetune-operator": ["-m", "finetune_operator"],
    "naive on.create": [__file__, "--naive"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=100)
    parser.add_argument("--rate", type=float, default=20, help="jobs per second")
    parser.add_argument("--json", type=Path, help="write the medians there")
    parser.add_argument("--serve", type=int, metavar="PORT", help=argparse.SUPPRESS)
    parser.add_argument("--naive", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        web.run_app(Server().application(), host="127.0.0.1", port=arguments.serve, access_log=None)
        return
    if arguments.naive:
        asyncio.run(naive())
        return
    rounds: dict[str, list[Cost]] = {name: [] for name in CONTENDERS}
    for _ in range(arguments.rounds):
        for name, contender in CONTENDERS.items():
            cost = measure(contender, arguments.jobs, arguments.rate)
            rounds[name].append(asyncio.run(cost))
    report(rounds, arguments.json)


def report(rounds: dict[str, list[Cost]], path: Path | None) -> None:
    medians = {
        name: {
            field: statistics.median(getattr(cost, field) for cost in costs)
            for field in ("requests", "cpu", "p50", "p99")
        }
        for name, costs in rounds.items()
    }
    print(f"{'':18} {'requests':>9} {'CPU ms':>7} {'p50 ms':>7} {'p99 ms':>7}  per job")
    for name, values in medians.items():
        print(
            f"{name:18} {values['requests']:9.1f} {values['cpu']:7.1f} "
            f"{values['p50']:7.0f} {values['p99']:7.0f}"
        )
    if path is not None:
        path.write_text(json.dumps(medians, indent=1) + "\n")


if __name__ == "__main__":
    main()
