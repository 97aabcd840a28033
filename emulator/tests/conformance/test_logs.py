"""Logs are read through the node: the server asks the kubelet that the Node names."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trustme
from aiohttp import web


@asynccontextmanager
async def kubelet() -> AsyncIterator[tuple[int, list]]:
    """A kubelet's log endpoint on a port of its own; the requests it got."""
    asked: list[tuple[str, dict]] = []

    async def logs(request: web.Request) -> web.StreamResponse:
        asked.append((request.path, dict(request.query)))
        if request.match_info["pod"] == "broken":
            return web.Response(status=400, text="the container is waiting to start")
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"first line\n")
        if request.query.get("follow") == "true":
            await asyncio.sleep(0)
            await response.write(b"second line\n")
        return response

    app = web.Application()
    app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", logs)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    try:
        yield runner.addresses[0][1], asked
    finally:
        await runner.cleanup()


@pytest.fixture
async def node(api, namespace) -> AsyncIterator[tuple[str, list]]:
    """A Node named after the test's namespace, and what its kubelet was asked."""
    async with kubelet() as (port, asked):
        status = {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        }
        made = await api.post("/api/v1/nodes", {"metadata": {"name": namespace}, "status": status})
        assert made.status == 201, made.body
        yield namespace, asked
        await api.delete(f"/api/v1/nodes/{namespace}")


async def run(api, namespace: str, node: str, name: str, containers: int = 1) -> str:
    path = f"/api/v1/namespaces/{namespace}/pods"
    specs = [{"name": f"c{i}", "image": "x.dev/a:1"} for i in range(containers)]
    body = {"metadata": {"name": name}, "spec": {"containers": specs}}
    assert (await api.post(path, body)).status == 201
    target = {"metadata": {"name": name}, "target": {"kind": "Node", "name": node}}
    assert (await api.post(f"{path}/{name}/binding", target)).status == 201
    return f"{path}/{name}/log"


async def test_logs_come_from_the_node(api, namespace, node) -> None:
    name, asked = node
    log = await run(api, namespace, name, "p")
    answer = await api.get(log, tailLines="5", timestamps="true", previous="true")
    assert (answer.status, answer.body) == (200, "first line\n")
    path, query = asked[0]
    assert path == f"/containerLogs/{namespace}/p/c0"
    assert {"tailLines": "5", "timestamps": "true", "previous": "true"}.items() <= query.items()


async def test_kubectl_follows_logs(api, namespace, node, kubectl) -> None:
    await run(api, namespace, node[0], "p")
    following = await asyncio.to_thread(kubectl, "logs", "p", "-f", "-n", namespace)
    assert following.stdout == "first line\nsecond line\n", following.stderr


async def test_the_container_must_be_named_among_several(api, namespace, node) -> None:
    log = await run(api, namespace, node[0], "p", containers=2)
    refused = await api.get(log)
    assert refused.status == 400
    assert (
        "a container name must be specified for pod p, choose one of: [c0 c1]"
        in (refused.body["message"])
    )
    assert (await api.get(log, container="c1")).body == "first line\n"
    assert node[1][-1][0].endswith("/c1")
    wrong = await api.get(log, container="c9")
    assert "container c9 is not valid for pod p" in wrong.body["message"]


async def test_the_nodes_refusal_is_passed_on(api, namespace, node) -> None:
    log = await run(api, namespace, node[0], "broken")
    refused = await api.get(log)
    assert refused.status == 400
    assert "the container is waiting to start" in refused.body["message"]


async def test_a_pod_without_a_node_has_no_logs(api, namespace) -> None:
    path = f"/api/v1/namespaces/{namespace}/pods"
    spec = {"containers": [{"name": "c", "image": "x.dev/a:1"}]}
    await api.post(path, {"metadata": {"name": "p"}, "spec": spec})
    answer = await api.get(f"{path}/p/log")
    assert answer.status == 400 or answer.body == ""
