"""A reward service as a test needs it: a real HTTP server whose answers the test decides."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from anyio.from_thread import start_blocking_portal

Document = dict[str, Any]
Behaviour = Callable[[Document, int], Awaitable[web.StreamResponse]]


@dataclass
class Judge:
    """What was asked of the server, and how it answers: `behave(document, number)`."""

    behave: Behaviour
    url: str = ""
    documents: list[Document] = field(default_factory=list)
    requests: list[web.Request] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.documents.append(await request.json())
        self.requests.append(request)
        number = len(self.documents) - 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            return await self.behave(self.documents[number], number)
        finally:
            self.at_once -= 1

    @property
    def keys(self) -> list[str]:
        """Return the idempotency keys in the order of the requests."""
        return [request.headers["Idempotency-Key"] for request in self.requests]


def lengths(document: Document) -> list[float]:
    """Return the scores of a judge that likes long completions."""
    return [float(len(sample["completion"])) for sample in document["samples"]]


async def good(document: Document, number: int) -> web.StreamResponse:
    """Answer as a service that works."""
    return web.json_response({"scores": lengths(document)})


def after(seconds: float) -> Behaviour:
    """Return a service that works, slowly."""

    async def behave(document: Document, number: int) -> web.StreamResponse:
        await asyncio.sleep(seconds)
        return await good(document, number)

    return behave


def answering(body: bytes, **arguments: Any) -> Behaviour:
    """Return a service that always answers the same."""

    async def behave(document: Document, number: int) -> web.StreamResponse:
        return web.Response(body=body, **arguments)

    return behave


@contextmanager
def judge_server(behave: Behaviour = good, tls: ssl.SSLContext | None = None) -> Iterator[Judge]:
    """Serve on a free port of this machine, in a thread of its own."""
    judge = Judge(behave)

    async def start() -> web.AppRunner:
        app = web.Application()
        app.router.add_post("/score", judge.handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        scheme = "http" if tls is None else "https"
        judge.url = f"{scheme}://127.0.0.1:{runner.addresses[0][1]}/score"
        return runner

    with start_blocking_portal() as portal:
        runner = portal.call(start)
        try:
            yield judge
        finally:
            portal.call(runner.cleanup)
