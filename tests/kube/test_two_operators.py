"""Two operators on one API server: one works, and status never goes back."""

from __future__ import annotations

import asyncio
import re
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from finetune_operator.cluster.election import RENEW_SECONDS
from support.cluster.bench import Bench
from support.cluster.installation import installed

Json = Any


@pytest.fixture
async def pair(
    api: Any, namespace: str, eventually: Any, kubeconfig: Path, tmp_path: Path
) -> AsyncIterator[tuple[Bench, Bench]]:
    """The first leads, the second stands by."""
    first = await installed(api, namespace, eventually, kubeconfig, tmp_path / "a")
    second = first.another(tmp_path / "b")
    try:
        first.start()
        await eventually(lambda: leads(first), "the first to lead", 30)
        second.start()
        await eventually(lambda: stands_by(second), "the second to stand by", 30)
        yield first, second
    finally:
        first.stop(signal.SIGKILL)
        second.stop(signal.SIGKILL)


async def metric(bench: Bench, name: str) -> float | None:
    try:
        async with aiohttp.ClientSession() as session:
            answer = await session.get(f"http://127.0.0.1:{bench.port}/metrics")
            found = re.search(rf"^{name} (\S+)$", await answer.text(), re.MULTILINE)
    except aiohttp.ClientConnectionError:
        return None
    return float(found[1]) if found else None


async def leads(bench: Bench) -> bool:
    return await metric(bench, "finetune_operator_leader") == 1


async def stands_by(bench: Bench) -> bool:
    return await metric(bench, "finetune_operator_leader") == 0


async def statuses(bench: Bench, seen: list[Json]) -> None:
    """Note each status of the job, as far as it stands for a moment."""
    while True:
        body = await bench.get("finetunejobs", "bot")
        if body and (not seen or body["metadata"]["resourceVersion"] != seen[-1][0]):
            progress = body.get("status", {}).get("progress", {})
            seen.append((body["metadata"]["resourceVersion"], progress.get("step") or 0))
        await asyncio.sleep(0.05)


async def reported(bench: Bench, account: Any, step: int) -> None:
    beat = await bench.heartbeat(account, 1, phase="Train", done=step, total=60, step=step)
    assert beat.status == 200, beat.body

    def shown(body: Json) -> bool:
        return bool(body["status"].get("progress", {}).get("step") == step)

    await bench.until("finetunejobs", "bot", shown, f"step {step}")


async def test_a_leader_that_stops_for_a_while_is_replaced_and_changes_nothing_later(
    pair: tuple[Bench, Bench],
) -> None:
    first, second = pair
    await first.apply()
    await first.pods_run(await first.pods_appear(1))
    account = first.api.as_token(await first.token("bot-finetune"))
    await reported(first, account, 1)
    seen: list[Json] = []
    watching = asyncio.create_task(statuses(first, seen))
    assert first.operator is not None
    process = first.operator.first
    process.send_signal(signal.SIGSTOP)
    beat = await first.heartbeat(account, 1, phase="Train", done=7, total=60, step=7)
    assert beat.status == 200, beat.body
    await first.eventually(lambda: leads(second), "the second to lead", 30)
    await reported(first, account, 8)
    process.send_signal(signal.SIGCONT)
    await first.eventually(lambda: stands_by(first), "the first to notice", RENEW_SECONDS)
    await reported(first, account, 9)

    async def noted() -> bool:
        return seen[-1][1] == 9

    await first.eventually(noted, "the last step to be noted", RENEW_SECONDS)
    before = len(seen)
    await asyncio.sleep(3)
    watching.cancel()
    assert len(seen) == before, "two operators write"
    assert [step for _, step in seen] == sorted(step for _, step in seen)
    assert await leads(second)


async def test_who_is_told_to_go_hands_over(pair: tuple[Bench, Bench]) -> None:
    first, second = pair
    told = time.monotonic()
    assert first.stop(signal.SIGTERM) == 0
    await first.eventually(lambda: leads(second), "the second to lead", 30)
    assert time.monotonic() - told < RENEW_SECONDS
    await second.apply()
    await second.pods_appear(1)
