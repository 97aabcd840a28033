"""The watches outlive what an API server answers; they end when the process is told to."""

import asyncio
import itertools
import os
import signal
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio.client.configuration import Configuration

from finetune_operator.cluster.cache import Cache
from finetune_operator.cluster.client import Cluster
from finetune_operator.controller import Controller
from finetune_operator.handlers import Watches, _kopf_settings
from finetune_operator.job.resources import resources
from finetune_operator.plan.backends import BACKEND
from finetune_operator.settings import Settings


async def test_an_answer_that_ends_the_watches_ends_nothing_else() -> None:
    asked: asyncio.Queue[str] = asyncio.Queue()

    async def nothing_is_served(request: web.Request) -> web.Response:
        asked.put_nowait(request.path)
        return web.Response(status=404)

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", nothing_is_served)
    async with TestServer(app) as server:
        configuration: Any = Configuration()
        configuration.host = str(server.make_url(""))
        cluster = Cluster(configuration, resources(BACKEND.kinds))
        settings = Settings(trainer_image="t")
        watches = Watches(settings, Controller(settings, cluster, Cache(), BACKEND), cluster)
        task = asyncio.create_task(watches.run())
        for _ in range(3):
            async with asyncio.timeout(20):
                while await asked.get() != "/apis":
                    pass
            assert not task.done()
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(20):
            await task
        await cluster.close()


async def test_what_goes_while_the_watches_start_anew_is_listed_soon() -> None:
    asked: asyncio.Queue[str] = asyncio.Queue()

    async def nothing_is_answered(request: web.Request) -> web.Response:
        asked.put_nowait(request.path)
        await asyncio.Event().wait()
        return web.Response()

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", nothing_is_answered)
    async with TestServer(app) as server:
        configuration: Any = Configuration()
        configuration.host = str(server.make_url(""))
        cluster = Cluster(configuration, resources(BACKEND.kinds))
        settings = Settings(trainer_image="t")
        controller = Controller(settings, cluster, Cache(), BACKEND)
        watches = Watches(settings, controller, cluster)
        task = asyncio.create_task(watches.run())
        for missed in (False, True):
            async with asyncio.timeout(20):
                while await asked.get() != "/apis":
                    pass
            assert controller.sync._missed.is_set() is missed
            watches.start_anew()
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(20):
            await task
        await cluster.close()


def test_a_request_that_is_refused_is_tried_for_ever() -> None:
    backoffs: Any = _kopf_settings().networking.error_backoffs
    for _ in range(2):
        first, *_, last = itertools.islice(backoffs, 1000)
        assert first < 1
        assert 5 < last <= 30
