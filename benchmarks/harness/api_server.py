"""As much of an API server as an operator's cost needs; it counts requests and delays writes.

python api_server.py PORT [RUNNING]: with so many jobs that run already.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import uuid
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from aiohttp import web

from finetune_api.job import KIND
from finetune_operator.job.resources import resources
from finetune_operator.job.times import rfc3339
from finetune_operator.plan.backends import BACKEND
from harness.population import NAMESPACE, population
from kube_emulator.apiserver.wire.patches import merge_patch

Json = Any
UNCOUNTED = "X-Bench"  # the header of the benchmark's own requests
ROUND_TRIP_SECONDS = 0.02
KOPF_NEEDS = {"namespaces": "Namespace", "customresourcedefinitions": "CustomResourceDefinition"}


class Server:
    """The part of an API server that the two operators use: create, get, patch, list, watch."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, bytes]] = {}  # by plural and name, as JSON
        self.watchers: dict[str, list[asyncio.Queue[bytes]]] = {}
        self.counts: Counter[str] = Counter()
        self.times: dict[str, float] = {}
        self.version = 1_000_000  # what is there from the start is older

    def populate(self, running: int) -> None:
        for plural, name, text in population(running):
            self.objects.setdefault(plural, {})[name] = text

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/bench/state", self.state)
        app.router.add_get("/api", _reply({"versions": ["v1"]}))
        app.router.add_get("/apis", _reply({"groups": _groups()}))
        for api, served in _served().items():
            app.router.add_get(api, _reply({"resources": served}))
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
            return await (self.watch(request, plural) if watching else self.list(request, plural))
        if UNCOUNTED not in request.headers:
            self.counts[f"{request.method} {plural}"] += 1
            await asyncio.sleep(ROUND_TRIP_SECONDS)
        stored = self.objects.setdefault(plural, {})
        if request.method == "POST":
            return self.store(plural, await request.json(), "ADDED", 201)
        if not name or name[0] not in stored:
            return web.json_response({"reason": "NotFound", "message": "no"}, status=404)
        if request.method == "PATCH":
            body = merge_patch(json.loads(stored[name[0]]), await request.json())
            return self.store(plural, body, "MODIFIED", 200)
        return _json(stored[name[0]])

    def store(self, plural: str, body: Json, event: str, code: int) -> web.Response:
        metadata = body["metadata"]
        self.version += 1
        metadata["resourceVersion"] = str(self.version)
        metadata.setdefault("uid", str(uuid.uuid4()))
        metadata.setdefault("generation", 1)
        metadata.setdefault("namespace", NAMESPACE)
        metadata.setdefault("name", str(uuid.uuid4()))
        metadata.setdefault("creationTimestamp", rfc3339(datetime.now(UTC)))
        text = json.dumps(body).encode()
        self.objects.setdefault(plural, {})[metadata["name"]] = text
        if event == "ADDED":
            self.times[f"{plural}/{metadata['name']}"] = time.monotonic()
        for queue in self.watchers.get(plural, []):
            queue.put_nowait(b'{"type": "%s", "object": %s}\n' % (event.encode(), text))
        return _json(text, code)

    async def list(self, request: web.Request, plural: str) -> web.Response:
        begin, stored = int(request.query.get("continue", 0)), self.objects.get(plural, {})
        field, _, value = request.query.get("fieldSelector", "").partition("=")
        if field == "metadata.name":
            items = [stored[value]] if value in stored else []
        else:  # an uid stands in no other field
            items = [text for text in stored.values() if value.encode() in text]
        end = begin + int(request.query.get("limit", len(items)))
        metadata = {"resourceVersion": str(self.version)}
        if end < len(items):
            metadata["continue"] = str(end)
        page = b",".join(items[begin:end])
        return _json(b'{"metadata": %s, "items": [%s]}' % (json.dumps(metadata).encode(), page))

    async def watch(self, request: web.Request, plural: str) -> web.StreamResponse:
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        response = web.StreamResponse()
        await response.prepare(request)
        self.watchers.setdefault(plural, []).append(queue)
        try:
            while True:
                await response.write(await queue.get())
        finally:
            self.watchers[plural].remove(queue)


def _json(text: bytes, code: int = 200) -> web.Response:
    return web.Response(body=text, status=code, content_type="application/json")


def _reply(body: Json) -> Any:
    async def reply(_: web.Request) -> web.Response:
        return web.json_response(body)

    return reply


def _served() -> dict[str, list[Json]]:
    """Return what discovery says of each API version."""
    found: dict[str, list[Json]] = {"/apis/apiextensions.k8s.io/v1": []}
    for kind, resource in resources(BACKEND.kinds).items():
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


if __name__ == "__main__":
    server = Server()
    server.populate(int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    web.run_app(server.application(), host="127.0.0.1", port=int(sys.argv[1]), access_log=None)
