"""The raw client and its informer, against a scripted API server."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from kube_emulator.client import PODS, ApiError, Client, Informer, Object, Resource


def item(name: str, version: int, **more: Any) -> Object:
    return {"metadata": {"name": name, "namespace": "ns", "resourceVersion": str(version)}, **more}


class Server:
    """Answers lists from `listed`; each watch plays the next script of (type, object) events.

    A script that ends with None keeps the connection open.
    """

    def __init__(self) -> None:
        self.listed: list[list[Object]] = [[]]
        self.watches: list[list[Any]] = []
        self.queries: list[dict[str, str]] = []
        self.requests: list[tuple[str, str, str, Any]] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        text = await request.text()
        content = request.headers.get("Content-Type", "")
        body = json.loads(text) if text else None
        self.requests.append((request.method, request.path, content, body))
        if request.path.endswith("/refused"):
            status = {"reason": "Invalid", "message": "spec: no", "code": 422}
            return web.json_response(status, status=422)
        if request.path.endswith("/gone"):
            return web.json_response({"reason": "NotFound", "code": 404}, status=404)
        if request.path.endswith("/garbled"):
            return web.Response(status=502, text="<html>proxy</html>")
        if request.method != "GET" or not request.path.endswith("/pods"):
            return web.json_response({"ok": request.headers.get("Authorization", "")})
        self.queries.append(dict(request.query))
        return await (self._watch(request) if "watch" in request.query else self._list())

    async def _list(self) -> web.Response:
        items = self.listed.pop(0) if len(self.listed) > 1 else self.listed[0]
        meta = {"resourceVersion": "100"}
        kind = {"apiVersion": "v1", "kind": "PodList", "metadata": meta}
        return web.json_response(kind | {"items": items})

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        script = self.watches.pop(0) if self.watches else [None]
        for event in script:
            if event is None:
                await asyncio.sleep(3600)
            kind, changed = event
            await response.write(json.dumps({"type": kind, "object": changed}).encode() + b"\n")
        return response


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
async def client(server: Server, tmp_path: Path) -> AsyncIterator[Client]:
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    config = {
        "clusters": [
            {"name": "c", "cluster": {"server": f"http://127.0.0.1:{runner.addresses[0][1]}/"}}
        ],
        "users": [{"name": "u", "user": {"token": "secret"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    made = await Client.connect(path)
    yield made
    await made.close()
    await runner.cleanup()


@pytest.mark.parametrize(
    ("resource", "arguments", "path"),
    [
        (PODS, (), "/api/v1/pods"),
        (PODS, ("ns",), "/api/v1/namespaces/ns/pods"),
        (PODS, ("ns", "a", "status"), "/api/v1/namespaces/ns/pods/a/status"),
        (Resource("apis/g/v1", "things"), (None, "a"), "/apis/g/v1/things/a"),
    ],
)
def test_paths(resource: Resource, arguments: tuple[Any, ...], path: str) -> None:
    assert resource.path(*arguments) == path


async def test_requests(client: Client, server: Server) -> None:
    assert await client.get("/x") == {"ok": "Bearer secret"}
    await client.create("/x", {"a": 1})
    await client.replace("/x", {"a": 2})
    await client.patch("/x", {"a": 3})
    await client.delete("/x", uid="u", grace_seconds=0)
    assert [(method, body) for method, _, _, body in server.requests[1:4]] == [
        ("POST", {"a": 1}),
        ("PUT", {"a": 2}),
        ("PATCH", {"a": 3}),
    ]
    assert server.requests[3][2] == "application/merge-patch+json"
    method, _, _, options = server.requests[4]
    assert method == "DELETE"
    assert options["preconditions"] == {"uid": "u"}
    assert options["gracePeriodSeconds"] == 0


async def test_refusals(client: Client) -> None:
    with pytest.raises(ApiError) as refusal:
        await client.create("/refused", {})
    assert (refusal.value.status, refusal.value.reason, refusal.value.message) == (
        422,
        "Invalid",
        "spec: no",
    )
    with pytest.raises(ApiError, match="proxy"):
        await client.get("/garbled")
    with pytest.raises(ApiError):
        await client.delete("/refused")
    await client.delete("/gone")


async def test_a_lost_connection_is_one_kind_of_refusal(tmp_path: Path) -> None:
    config = {
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    client = await Client.connect(path)
    with pytest.raises(ApiError) as refusal:
        await client.get("/x")
    assert (refusal.value.status, refusal.value.reason) == (0, "Unreachable")
    await client.close()


class Seen:
    """Records an informer's changes and lets a test wait for the n-th."""

    def __init__(self) -> None:
        self.changes: list[tuple[str | None, str | None]] = []
        self._more = asyncio.Condition()

    def __call__(self, old: Object | None, new: Object | None) -> None:
        self.changes.append((_short(old), _short(new)))

    async def until(self, count: int) -> None:
        async with asyncio.timeout(30):
            while True:
                if len(self.changes) >= count:
                    return
                await asyncio.sleep(0.01)


def _short(one: Object | None) -> str | None:
    return one and f"{one['metadata']['name']}@{one['metadata']['resourceVersion']}"


async def informed(client: Client, seen: Seen, count: int, selector: str = "") -> Informer:
    informer = Informer(client, PODS.path(), seen, selector)
    running = asyncio.create_task(informer.run())
    try:
        await seen.until(count)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    return informer


async def test_list_then_watch(client: Client, server: Server) -> None:
    server.listed = [[item("a", 1), item("b", 2)]]
    server.watches = [
        [
            ("MODIFIED", item("a", 101)),
            ("ADDED", item("c", 102)),
            ("DELETED", item("b", 103)),
            None,
        ]
    ]
    seen = Seen()
    informer = await informed(client, seen, 5, "spec.nodeName=n")
    assert seen.changes == [
        (None, "a@1"),
        (None, "b@2"),
        ("a@1", "a@101"),
        (None, "c@102"),
        ("b@2", None),
    ]
    assert set(informer.items) == {"ns/a", "ns/c"}
    assert server.queries[0] == {"fieldSelector": "spec.nodeName=n"}
    assert server.queries[1]["resourceVersion"] == "100"
    assert server.queries[1]["fieldSelector"] == "spec.nodeName=n"


async def test_items_of_a_list_learn_their_kind(client: Client, server: Server) -> None:
    server.listed = [[item("a", 1)]]
    informer = await informed(client, Seen(), 1)
    assert informer.items["ns/a"]["kind"] == "Pod"
    assert informer.items["ns/a"]["apiVersion"] == "v1"


async def test_a_watch_that_ends_goes_on_where_it_was(client: Client, server: Server) -> None:
    server.watches = [
        [("ADDED", item("a", 101)), ("BOOKMARK", item("", 150))],
        [("ADDED", item("b", 151)), None],
    ]
    seen = Seen()
    await informed(client, seen, 2)
    assert seen.changes == [(None, "a@101"), (None, "b@151")]
    versions = [query.get("resourceVersion") for query in server.queries]
    assert versions == [None, "100", "150"]


async def test_an_expired_watch_lists_again_and_tells_the_difference(
    client: Client, server: Server
) -> None:
    kept, lost, new = item("kept", 1), item("lost", 2), item("new", 90)
    server.listed = [[kept, lost], [kept, new]]
    gone = {"code": 410, "reason": "Expired", "message": "too old"}
    server.watches = [[("ERROR", gone)], [None]]
    seen = Seen()
    await informed(client, seen, 4)
    assert seen.changes == [
        (None, "kept@1"),
        (None, "lost@2"),
        ("lost@2", None),
        (None, "new@90"),
    ]


async def test_a_large_event_arrives_whole(client: Client, server: Server) -> None:
    big = item("a", 101, data="x" * 3_000_000)
    server.watches = [[("ADDED", big), ("ADDED", item("b", 102)), None]]
    informer = await informed(client, Seen(), 2)
    assert informer.items["ns/a"]["data"] == big["data"]


async def test_a_noted_object_is_there_before_the_watch_shows_it(
    client: Client, server: Server
) -> None:
    informer = Informer(client, PODS.path(), Seen())
    informer.note(item("a", 5))
    informer.items["ns/b"] = item("b", 9)
    informer.note(item("b", 7))
    versions = {key: one["metadata"]["resourceVersion"] for key, one in informer.items.items()}
    assert versions == {"ns/a": "5", "ns/b": "9"}
