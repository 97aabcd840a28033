"""The watches outlive what an API server answers; they end when the process is told to."""

import asyncio
import contextlib
import itertools
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio.client.configuration import Configuration
from yarl import URL

from finetune_operator.cluster.cache import Cache
from finetune_operator.cluster.client import Cluster
from finetune_operator.controller import Controller
from finetune_operator.handlers import Watches, _kopf_settings, _list_nothing
from finetune_operator.job.resources import resources
from finetune_operator.plan.backends import BACKEND
from finetune_operator.settings import Settings


@contextlib.asynccontextmanager
async def watching(
    answer: Callable[[], Awaitable[web.Response]],
) -> AsyncIterator[tuple[Watches, Controller, asyncio.Task[None], asyncio.Queue[str]]]:
    """Watches of a server that answers all so, and the paths that it is asked for; they are told to
    go at the end, and do."""
    asked: asyncio.Queue[str] = asyncio.Queue()

    async def handle(request: web.Request) -> web.Response:
        asked.put_nowait(request.path)
        return await answer()

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", handle)
    async with TestServer(app) as server:
        configuration: Any = Configuration()
        configuration.host = str(server.make_url(""))
        cluster = Cluster(configuration, resources(BACKEND.kinds))
        settings = Settings(trainer_image="t")
        controller = Controller(settings, cluster, Cache(), BACKEND)
        watches = Watches(settings, controller, cluster)
        task = asyncio.create_task(watches.run())
        yield watches, controller, task, asked
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(20):
            await task
        await cluster.close()


async def begin(asked: asyncio.Queue[str]) -> None:
    """Wait until Kopf looks for what is served."""
    async with asyncio.timeout(20):
        while await asked.get() != "/apis":
            pass


async def test_an_answer_that_ends_the_watches_ends_nothing_else() -> None:
    async def nothing_is_served() -> web.Response:
        return web.Response(status=404)

    async with watching(nothing_is_served) as (_, _, task, asked):
        for _ in range(3):
            await begin(asked)
            assert not task.done()


async def test_whoever_lists_jobs_is_told_when_the_watches_end() -> None:
    async def nothing_is_answered() -> web.Response:
        await asyncio.Event().wait()
        return web.Response()

    async with watching(nothing_is_answered) as (watches, controller, _, asked):
        for ended in (False, True):
            await begin(asked)
            assert controller.sync._news[None].is_set() is ended
            watches.start_anew()


async def test_kopf_lists_nothing_and_says_that_a_watch_begins() -> None:
    asked: list[tuple[str, str]] = []
    begun: list[str | None] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append((request.path_qs, request.headers.get("Authorization", "")))
        return web.Response(status=403 if "forbidden" in request.path else 200)

    class Listens:
        def begin(self, scope: str | None) -> None:
            begun.append(scope)

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", answer)
    jobs = "finetunejobs"
    async with TestServer(app) as server:
        configuration: Any = Configuration()
        configuration.host = str(server.make_url(""))
        configuration.api_key = {"BearerToken": "Bearer of-the-moment"}
        cluster = Cluster(configuration, resources(BACKEND.kinds))
        listens: Any = Listens()
        async with cluster.session(_list_nothing(listens)) as session:
            for path in (
                f"apis/finetune.dev/v1alpha1/{jobs}?limit=500",
                f"k8s/apis/finetune.dev/v1alpha1/namespaces/team/{jobs}?limit=500",
                f"apis/finetune.dev/v1alpha1/namespaces/team/{jobs}?watch=true",
                f"apis/finetune.dev/v1alpha1/namespaces/forbidden/{jobs}",
                "apis/finetune.dev/v1alpha1",
            ):
                await session.get(server.make_url("/").join(URL(path)))
        await cluster.close()
    shortened = [path.endswith("fieldSelector=metadata.name%3D-") for path, _ in asked]
    assert shortened == [True, True, False, True, False]
    assert {token for _, token in asked} == {"Bearer of-the-moment"}
    assert begun == [None, "team"], "what is refused begins no watch"


def test_a_request_that_is_refused_is_tried_for_ever() -> None:
    backoffs: Any = _kopf_settings().networking.error_backoffs
    for _ in range(2):
        first, *_, last = itertools.islice(backoffs, 1000)
        assert first < 1
        assert 5 < last <= 30
