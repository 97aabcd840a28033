"""The controller queues what a watch shows, and one job's surprise stays with that job."""

import asyncio
from typing import Any

import pytest
from aiohttp import ClientSession

from finetune_api.job import KIND
from finetune_operator.cluster.cache import Cache, Key
from finetune_operator.cluster.queue import RetryLater
from finetune_operator.controller import Controller
from finetune_operator.plan.backends import BACKEND
from finetune_operator.settings import Settings
from support.operator.jobs import bot_job
from support.operator.model_cluster import ModelApi
from support.operator.model_world import World

KEY = Key("team", "bot")


def nothing(*_: Any) -> None:
    pass


def controller(world: World, port: int = 0, check: Any = nothing) -> tuple[Controller, Cache]:
    cache = Cache()
    settings = Settings(trainer_image="t", bind_port=port)
    api: Any = ModelApi(world, check, check)
    return Controller(settings, api, cache, BACKEND), cache


def job(version: int = 1) -> dict[str, Any]:
    metadata = {"name": "bot", "namespace": "team", "uid": "u", "resourceVersion": str(version)}
    return {"kind": KIND, "metadata": metadata}


def waiting(of: Controller) -> int:
    return len(of._queue)


async def test_nothing_is_queued_before_everything_was_listed() -> None:
    made, cache = controller(World())
    made.notice("ADDED", job())
    assert waiting(made) == 0
    assert cache.job(KEY) is not None
    cache.synced = True
    made.notice("MODIFIED", job(1))
    assert waiting(made) == 0, "it is no news"
    made.notice(None, job(2))
    assert waiting(made) == 1


async def test_a_deletion_is_taken_in_and_looked_at() -> None:
    made, cache = controller(World())
    cache.synced = True
    cache.put(job())
    made.notice("DELETED", job(2))
    assert cache.job(KEY) is None
    assert waiting(made) == 1


async def test_a_surprise_is_counted_and_comes_back_later() -> None:
    def fail(*_: Any) -> None:
        raise KeyError("a field that is always there")

    world = World()
    made, cache = controller(world, check=fail)
    cache.put(world.add(bot_job()))
    with pytest.raises(RetryLater):
        await made._handle(KEY)
    counted = made.metrics.render().decode()
    assert 'finetune_operator_reconciles_total{outcome="error"} 1.0' in counted


async def test_it_lists_then_works_then_answers_probes(unused_tcp_port: int) -> None:
    world = World()
    world.add(bot_job())
    made, cache = controller(world, unused_tcp_port)
    task = asyncio.create_task(made.run())
    async with asyncio.timeout(20):
        while ("PyTorchJob", "bot-a1") not in world.objects:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    assert cache.synced
    async with ClientSession() as session:
        answer = await session.get(f"http://127.0.0.1:{unused_tcp_port}/readyz")
        assert answer.status == 200
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
