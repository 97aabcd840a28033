"""What a client makes of what a watch shows."""

import asyncio
import json
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio.client.configuration import Configuration

from finetune_operator.cluster.api import ApiError, Change, Unreachable, Unreadable
from finetune_operator.cluster.client import Cluster
from finetune_operator.job.resources import resources
from finetune_operator.plan.backends import BACKEND
from support.services.api_server import ApiServer, named, status

Json = Any
SHOWN = {"metadata": {**named("p")["metadata"], "resourceVersion": "8"}}
POD = {"apiVersion": "v1", "kind": "Pod", **SHOWN}


def line(event: str, body: Json) -> str:
    return json.dumps({"type": event, "object": body}) + "\n"


async def shown(cluster: Cluster, kind: str = "Pod", namespace: str | None = "team") -> Any:
    return [change async for change in cluster.watch(kind, namespace, "x=y", "7")]


async def test_a_watch_is_read_line_by_line(server: ApiServer, cluster: Cluster) -> None:
    bookmark = {"kind": "Pod", "metadata": {"resourceVersion": "9"}}
    lines = line("ADDED", SHOWN) + line("BOOKMARK", bookmark) + line("DELETED", POD)
    server.answers = [(200, lines), (200, "")]
    assert await shown(cluster) == [Change("8", POD), Change("9"), Change("8", POD, deleted=True)]
    assert await shown(cluster, namespace=None) == []
    asked, everywhere = server.asked
    assert asked.path == "/api/v1/namespaces/team/pods"
    assert everywhere.path == "/api/v1/pods"
    assert asked.headers["Authorization"] == "Bearer secret-token"
    query = dict(asked.query)
    assert 300 <= int(query.pop("timeoutSeconds")) <= 600
    assert query == {
        "watch": "true",
        "allowWatchBookmarks": "true",
        "resourceVersion": "7",
        "labelSelector": "x=y",
    }


async def test_a_refusal_may_come_before_or_within(server: ApiServer, cluster: Cluster) -> None:
    _, gone = status(410, "Expired", "too old resource version")
    within = line("ADDED", SHOWN) + line("ERROR", {**gone, "code": 410})
    server.answers = [(410, gone), (200, within), (200, line("ERROR", {"code": "x"}))]
    for code in (410, 410, 500):
        with pytest.raises(ApiError) as refused:
            await shown(cluster)
        assert refused.value.code == code


@pytest.mark.parametrize(
    "text",
    [
        "<html>\n",
        "[]\n",
        "[" * 5000 + "\n",
        line("ADDED", 7),
        line("ADDED", {"metadata": {"name": "p", "resourceVersion": "8"}}),
        line("ADDED", named("p")),
        line("BOOKMARK", {}),
        '{"object": {}}\n',
        line("ADDED", {**SHOWN, "data": "x" * 2**23}),
    ],
    ids=["page", "list", "deep", "number", "no uid", "no version", "nothing", "no type", "large"],
)
async def test_what_can_not_be_read_says_so(server: ApiServer, cluster: Cluster, text: str) -> None:
    server.answers = [(200, text)]
    with pytest.raises(Unreadable):
        await shown(cluster)


async def test_an_object_may_be_as_large_as_one_that_is_stored(
    server: ApiServer, cluster: Cluster
) -> None:
    large = {**SHOWN, "data": "x" * 3 * 2**20}  # a store holds half of it
    server.answers = [(200, line("ADDED", large))]
    (change,) = await shown(cluster, "ConfigMap")
    assert change.body["data"] == large["data"]


async def test_a_connection_that_is_cut_or_dead_is_noticed_after_what_it_had_shown() -> None:
    asked = 0

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(line("ADDED", SHOWN).encode())
        if asked == 1:
            assert request.transport is not None
            request.transport.abort()
        else:
            await asyncio.Event().wait()
        return response

    app = web.Application()
    app.router.add_get("/{tail:.*}", answer)
    async with TestServer(app) as server:
        configuration: Any = Configuration()
        configuration.host = str(server.make_url(""))
        cluster = Cluster(configuration, resources(BACKEND.kinds))
        assert cluster._silence.sock_read == 70, "bookmarks come once a minute"
        cluster._silence = aiohttp.ClientTimeout(sock_read=0.2)
        cluster._timeout = aiohttp.ClientTimeout(total=1e-6)  # of all that is no watch
        for _ in range(2):
            watch = cluster.watch("Pod", None, "", "7")
            assert await anext(watch) == Change("8", POD)
            with pytest.raises(Unreachable):
                await anext(watch)
        await cluster.close()
