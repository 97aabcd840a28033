"""/healthz, /readyz and /metrics over HTTP."""

from __future__ import annotations

import asyncio

from aiohttp import web

from finetune_operator.cluster.cache import Cache
from finetune_operator.metrics import Metrics


def application(cache: Cache, metrics: Metrics) -> web.Application:
    """Return the app: alive while the loop turns, ready once everything has been listed."""

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        if not cache.synced:
            return web.Response(status=503, text="the caches are not filled yet\n")
        return web.Response(text="ok\n")

    async def scrape(_: web.Request) -> web.Response:
        # Beside the loop: thousands of jobs take a second.
        text = await asyncio.to_thread(metrics.render)
        return web.Response(body=text, headers={"Content-Type": "text/plain; version=0.0.4"})

    app = web.Application()
    app.add_routes(
        [web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", scrape)]
    )
    return app


async def serve(app: web.Application, address: str, port: int) -> web.AppRunner:
    """Listen; the caller ends it by the runner's `cleanup`. Raises OSError if the port is taken."""
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, address, port).start()
    return runner
