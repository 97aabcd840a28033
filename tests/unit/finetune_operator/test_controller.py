"""The controller queues what a watch shows, and one job's surprise stays with that job."""

import asyncio
import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from email.utils import format_datetime
from io import StringIO
from typing import Any

import pytest
from aiohttp import ClientSession

from finetune_api.job import KIND
from finetune_operator import logs
from finetune_operator.cluster.cache import Cache, Key
from finetune_operator.cluster.clock import ServerClock
from finetune_operator.cluster.election import RENEW_SECONDS
from finetune_operator.cluster.queue import RetryLater
from finetune_operator.controller import Controller
from finetune_operator.plan.backends import BACKEND
from finetune_operator.settings import Settings
from support.operator.jobs import bot_job
from support.operator.model.api_server import ModelApi
from support.operator.model.world import World

KEY = Key("team", "bot")


def nothing(*_: Any) -> None:
    pass


def controller(world: World, port: int = 0, check: Any = nothing) -> tuple[Controller, Cache]:
    cache = Cache()
    settings = Settings(trainer_image="t", bind_port=port)
    api: Any = ModelApi(world, check, check)
    return Controller(settings, api, cache, BACKEND), cache


class Electorate(ModelApi):
    """Beside the World the Lease of operators."""

    def __init__(self, world: World, holder: str) -> None:
        super().__init__(world, nothing, nothing)
        self.lease: Any = {"metadata": {"uid": "u"}, "spec": {"holderIdentity": holder}}
        self.may_write = bool

    def apart(self, timeout: float) -> Any:
        assert timeout < RENEW_SECONDS / 2, "one slow answer would cost the lead"
        return self

    async def get(self, kind: str, namespace: str, name: str) -> Any:
        if (kind, namespace, name) == ("Lease", "system", "lead"):
            return self.lease
        return await super().get(kind, namespace, name)

    async def replace(self, body: Any) -> Any:
        self.lease = body
        return body

    async def close(self) -> None:
        self.lease["closed"] = True


def candidate(world: World, holder: str = "") -> tuple[Controller, Cache, Electorate]:
    cache = Cache()
    settings = Settings(trainer_image="t", bind_port=0, leader_lease="system/lead")
    api: Any = Electorate(world, holder)
    return Controller(settings, api, cache, BACKEND), cache, api


def job(version: int = 1) -> dict[str, Any]:
    metadata = {"name": "bot", "namespace": "team", "uid": "u", "resourceVersion": str(version)}
    return {"kind": KIND, "metadata": metadata}


@contextmanager
def lines() -> Iterator[StringIO]:
    """Show what is logged meanwhile."""
    handler = logging.StreamHandler(StringIO())
    handler.setFormatter(logs.formatter("text"))
    logging.getLogger("finetune_operator").addHandler(handler)
    yield handler.stream
    logging.getLogger("finetune_operator").removeHandler(handler)


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


async def test_who_does_not_lead_looks_at_deletions_alone_to_forget_them() -> None:
    made, cache, _ = candidate(World(), holder="another")
    cache.synced = True
    made.notice("ADDED", job())
    assert waiting(made) == 0
    made.notice("DELETED", job(2))
    assert waiting(made) == 1


async def test_a_surprise_is_counted_and_comes_back_later() -> None:
    def fail(*_: Any) -> None:
        raise KeyError("a field that is always there")

    world = World()
    made, cache = controller(world, check=fail)
    cache.synced = True
    cache.put(world.add(bot_job()))
    with lines() as told, pytest.raises(RetryLater):
        await made._handle(KEY)
    assert "team/bot: a pass failed unexpectedly" in told.getvalue()
    assert "KeyError: 'a field that is always there'" in told.getvalue()
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


async def test_who_stands_by_learns_and_does_nothing() -> None:
    world = World()
    made, cache, api = candidate(world, holder="another")
    cache.synced = True
    made.notice("ADDED", world.add(bot_job()))
    assert cache.job(KEY) is not None
    assert waiting(made) == 0
    assert await made._handle(KEY) is None
    assert world.writes == 0
    assert not api.may_write()
    metrics = made.metrics.render().decode()
    assert "finetune_operator_leader 0.0" in metrics
    assert 'name="bot"' not in metrics, "it would be counted twice"


async def test_who_is_elected_looks_at_all_jobs_and_hands_over_in_the_end() -> None:
    world = World()
    world.add(bot_job())
    made, _, api = candidate(world)
    task = asyncio.create_task(made.run())
    async with asyncio.timeout(20):
        while ("PyTorchJob", "bot-a1") not in world.objects:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    assert api.may_write()
    assert "finetune_operator_leader 1.0" in made.metrics.render().decode()
    assert api.lease["spec"]["holderIdentity"] != ""
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert api.lease["spec"]["holderIdentity"] == ""
    assert api.lease["closed"]
    assert not api.may_write()


async def test_what_a_closed_namespace_held_is_left_alone_and_forgotten() -> None:
    world = World()
    made, cache = controller(world)
    cache.synced = True
    body = world.add(bot_job())
    cache.put(body)
    await made._handle(KEY)
    writes = world.writes
    assert made._reconciler._parser._checked
    cache.close("team")
    made.notice("ADDED", body)
    assert waiting(made) == 0
    assert await made._handle(KEY) is None
    assert world.writes == writes
    assert made._reconciler._parser._checked == {}


async def _story(off: float) -> list[Any]:
    """Return what is decided of a job whose first pod fails, and which then exceeds its deadline,
    by an operator whose machine's clock is off."""
    world, skew = World(), timedelta(seconds=off)
    gpu = {"resources": {"limits": {"nvidia.com/gpu": 1}}}
    world.add(bot_job(runPolicy={"activeDeadlineSeconds": 1200}, workers=gpu))
    cache = Cache()
    api: Any = ModelApi(world, nothing, nothing)
    api.clock = ServerClock(lambda: world.now + skew)
    date = format_datetime(world.now, usegmt=True)
    api.clock.hear(date, api.clock.own(), api.clock.own())
    made = Controller(Settings(trainer_image="t", bind_port=0), api, cache, BACKEND)
    decided: list[Any] = []

    async def passes() -> None:
        for _ in range(3):
            await made.sync.list_all(None)
            cache.synced = True
            after = await made._handle(KEY)
            told = made.metrics.registry.get_sample_value(
                "finetune_job_gpu_seconds_total", {"namespace": "team", "name": "bot"}
            )
            decided.append((copy.deepcopy(world.job()["status"]), after, told))

    await passes()
    world.train_operator()
    world.kubelet("bot-a1-master-0")
    await passes()
    world.now += timedelta(seconds=30)
    await passes()
    world.end("bot-a1-master-0", "StorageUnavailable")
    for seconds in (0, 60, 700, 700):
        world.now += timedelta(seconds=seconds)
        world.train_operator()
        await passes()
    return decided


async def test_a_clock_that_is_wrong_changes_no_decision() -> None:
    right, before, behind = [await _story(off) for off in (0, 900, -900)]
    ends = [attempt["reason"] for attempt in right[-1][0]["attempts"]]
    assert ends == ["StorageUnavailable", "DeadlineExceeded"]
    assert 30 in [gpu_seconds for *_, gpu_seconds in right]
    assert before == right
    assert behind == right
