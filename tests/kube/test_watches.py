"""What is not there when the operator starts, or goes while it works, is found when it comes."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from finetune_api.crd import custom_resource_definition
from support.cluster.bench import Bench
from support.cluster.installation import CRDS, PYTORCHJOBS, installed
from support.operator.charts import quick

Json = Any
SOON_SECONDS = 15


@pytest.fixture
async def bench(
    api: Any, namespace: str, eventually: Any, kubeconfig: Path, tmp_path: Path
) -> AsyncIterator[Bench]:
    bench = await installed(api, namespace, eventually, kubeconfig, tmp_path)
    yield bench
    bench.stop(signal.SIGKILL)


async def answer(bench: Bench, path: str) -> tuple[int, str]:
    try:
        async with aiohttp.ClientSession() as session:
            found = await session.get(f"http://127.0.0.1:{bench.port}{path}")
            return found.status, await found.text()
    except aiohttp.ClientConnectionError:
        return 0, ""


async def goes(bench: Bench, definition: Json) -> None:
    name = definition["metadata"]["name"]
    await bench.api.delete(f"{CRDS}/{name}")
    plural = definition["spec"]["names"]["plural"]

    async def gone() -> bool:
        return (await bench.api.get(bench.path(plural))).status == 404

    await bench.eventually(gone, f"{name} to go", 30)


async def comes(bench: Bench, definition: Json) -> None:
    made = await bench.api.post(CRDS, definition)
    assert made.status == 201, made.body
    plural = definition["spec"]["names"]["plural"]

    async def served() -> bool:
        return (await bench.api.get(bench.path(plural))).status == 200

    await bench.eventually(served, f"{plural} to be served", 30)


async def trains(bench: Bench) -> float:
    """Return after how many seconds a new job has a PyTorchJob."""
    applied = time.monotonic()
    uid = (await bench.apply())["metadata"]["uid"]

    def is_its(body: Json) -> bool:
        return bool(body["metadata"]["ownerReferences"][0]["uid"] == uid)

    await bench.until("pytorchjobs", "bot-a1", is_its, "the attempt")
    return time.monotonic() - applied


async def test_custom_resources_may_come_after_the_operator_and_go_and_come_again(
    bench: Bench,
) -> None:
    own, kubeflows = custom_resource_definition(), yaml.safe_load(PYTORCHJOBS.read_text())
    await goes(bench, own)
    await goes(bench, kubeflows)
    bench.start()

    async def waits() -> bool:
        return (await answer(bench, "/readyz"))[0] == 503

    await bench.eventually(waits, "the operator to run", 30)
    await comes(bench, own)
    await comes(bench, kubeflows)
    assert await trains(bench) < SOON_SECONDS
    await goes(bench, own)
    await comes(bench, own)
    assert await trains(bench) < SOON_SECONDS


@pytest.mark.slow
async def test_a_backend_that_is_away_for_a_while_is_watched_again(bench: Bench) -> None:
    bench.start()
    await trains(bench)
    kubeflows = yaml.safe_load(PYTORCHJOBS.read_text())
    await goes(bench, kubeflows)
    await bench.until_reason("BackendUnavailable")
    await asyncio.sleep(5)  # the watches end, and start anew without it
    await comes(bench, kubeflows)
    came = time.monotonic()
    await bench.until("pytorchjobs", "bot-a2", lambda _: True, "the next attempt")
    await bench.pods_appear(2)
    await bench.workload_ends(2, "Failed")

    def ended(body: Json) -> bool:
        return body["status"]["attempts"][-1].get("reason") == "ResultLost"

    await bench.until("finetunejobs", "bot", ended, "the end of attempt 2")
    assert time.monotonic() - came < SOON_SECONDS


async def test_a_namespace_that_is_not_there_holds_up_no_other(bench: Bench) -> None:
    late = f"{bench.namespace}-late"
    watched = {"watchNamespaces": [bench.namespace, late]}
    bench.start(**watched)

    async def ready() -> bool:
        return (await answer(bench, "/readyz"))[0] == 200

    await bench.eventually(ready, "the operator to be ready", 30)
    refused = f'finetune_operator_namespace_refused{{namespace="{late}"}} 1.0'
    assert refused in (await answer(bench, "/metrics"))[1]
    assert await trains(bench) < SOON_SECONDS

    namespace = {"metadata": {"name": late}}
    assert (await bench.api.post("/api/v1/namespaces", namespace)).status == 201
    try:
        other = bench.elsewhere(late)
        for body in quick(bench.namespace, "role", watchNamespaces=[late]):
            made = await bench.api.post(other.path(f"{body['kind'].lower()}s"), body)
            assert made.status == 201, made.body
        assert await trains(other) < SOON_SECONDS
        assert "namespace_refused{" not in (await answer(bench, "/metrics"))[1]
    finally:
        await bench.api.delete(f"/api/v1/namespaces/{late}")


async def test_a_namespace_is_watched_once_it_has_the_labels(bench: Bench) -> None:
    chosen = {"watchNamespaces": {"matchLabels": {"chosen": bench.namespace}}}
    for body in quick(bench.namespace, "role", **chosen):
        path = f"/apis/rbac.authorization.k8s.io/v1/{body['kind'].lower()}s"
        await bench.api.delete(f"{path}/{body['metadata']['name']}")
        made = await bench.api.post(path, body)
        assert made.status == 201, made.body
    await bench.apply()
    bench.start(**chosen)

    async def ready() -> bool:
        return (await answer(bench, "/readyz"))[0] == 200

    await bench.eventually(ready, "the operator to be ready", 30)
    assert "finetune_job_state{" not in (await answer(bench, "/metrics"))[1]
    labels = {"metadata": {"labels": {"chosen": bench.namespace}}}
    await bench.api.merge(f"/api/v1/namespaces/{bench.namespace}", labels)
    labelled = time.monotonic()
    await bench.until("pytorchjobs", "bot-a1", lambda _: True, "the attempt")
    assert time.monotonic() - labelled < SOON_SECONDS
