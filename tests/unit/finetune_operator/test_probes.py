"""What Kubernetes and Prometheus ask over HTTP."""

from aiohttp import ClientSession
from aiohttp.test_utils import TestClient, TestServer

from finetune_operator.cluster.cache import Cache
from finetune_operator.metrics import Metrics
from finetune_operator.probes import application, serve


async def test_alive_at_once_ready_once_everything_was_listed() -> None:
    cache = Cache()
    async with TestClient(TestServer(application(cache, Metrics(cache, lambda: 0)))) as client:
        assert (await client.get("/healthz")).status == 200
        assert (await client.get("/readyz")).status == 503
        cache.synced = True
        assert (await client.get("/readyz")).status == 200


async def test_metrics_count_requests_and_what_waits() -> None:
    cache = Cache()
    metrics = Metrics(cache, lambda: 7)
    metrics.observe_request("create", "Lease", 201)
    async with TestClient(TestServer(application(cache, metrics))) as client:
        text = await (await client.get("/metrics")).text()
    lines = set(text.splitlines())
    assert "finetune_operator_queue_length 7.0" in lines
    counted = 'finetune_operator_api_requests_total{code="201",kind="Lease",verb="create"} 1.0'
    assert counted in lines


async def test_served_where_it_was_told_to(unused_tcp_port: int) -> None:
    cache = Cache()
    app = application(cache, Metrics(cache, lambda: 0))
    runner = await serve(app, "127.0.0.1", unused_tcp_port)
    async with ClientSession() as session:
        answer = await session.get(f"http://127.0.0.1:{unused_tcp_port}/healthz")
        assert answer.status == 200
    await runner.cleanup()
