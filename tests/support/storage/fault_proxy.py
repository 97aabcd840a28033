"""An HTTP proxy before an S3 server that fails on command.

Requests pass unchanged, Host header and all, so that their signatures stay valid. Faults are set
and lifted from the test's thread while requests are under way.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import Thread
from typing import Any

from aiohttp import ClientConnectionError, ClientSession, ClientTimeout, web
from yarl import URL

CHUNK_BYTES = 64 * 1024


@dataclass(frozen=True)
class Answer:
    """Answer without asking the server."""

    status: int
    code: str = ""  # S3's; empty: a body without one
    more: str = ""  # of the body

    @property
    def text(self) -> str:
        code = f"<Code>{self.code}</Code>" if self.code else ""
        return f"<?xml version='1.0'?><Error>{code}{self.more}</Error>"


@dataclass(frozen=True)
class Cut:
    """Break the connection after so many bytes of the body, of the request or of the answer."""

    after: int


@dataclass(frozen=True)
class Corrupt:
    """Flip a bit of the body's first byte, of the request or of the answer."""


@dataclass(frozen=True)
class Slow:
    """Wait before each chunk of the body."""

    seconds: float


@dataclass(frozen=True)
class Lost:
    """Let the server do it, and break the connection instead of passing its answer on."""


Fault = Answer | Cut | Corrupt | Slow | Lost

UNAVAILABLE = Answer(503, "SlowDown")
EXPIRED = Answer(403, "ExpiredToken")
DENIED = Answer(403, "AccessDenied")
FULL = Answer(507, "InsufficientStorage")


@dataclass
class Rule:
    """A fault and the requests it meets: the pattern is searched in `METHOD PATH?QUERY by KEY`,
    where KEY is the id of the access key."""

    pattern: re.Pattern[str]
    fault: Fault
    left: int | None  # times it strikes; None: until it is lifted
    struck: int = 0


@dataclass
class FaultProxy:
    """The proxy, and what it saw."""

    server: str  # http://HOST:PORT
    endpoint: str = ""
    requests: list[str] = field(default_factory=list)
    rules: list[Rule] = field(default_factory=list)

    def fail(self, pattern: str, fault: Fault, times: int | None = None) -> Rule:
        """Let matching requests fail from now on."""
        rule = Rule(re.compile(pattern), fault, times)
        self.rules.append(rule)
        return rule

    def heal(self) -> None:
        """Lift all faults."""
        self.rules.clear()

    def _struck(self, line: str) -> Fault | None:
        self.requests.append(line)
        for rule in list(self.rules):
            if rule.pattern.search(line) and rule.left != 0:
                rule.struck += 1
                rule.left = None if rule.left is None else rule.left - 1
                return rule.fault
        return None

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        signed = re.search(r"Credential=([^/]+)", request.headers.get("Authorization", ""))
        key = signed[1] if signed else "nobody"
        fault = self._struck(f"{request.method} {request.raw_path} by {key}")
        if isinstance(fault, Answer):
            return web.Response(status=fault.status, text=fault.text, content_type="text/xml")
        on_request = fault if request.method in ("PUT", "POST") else None
        try:
            async with self._session.request(
                request.method,
                URL(f"{self.server}{request.raw_path}", encoded=True),
                headers=request.headers,
                data=_faulty(request.content.iter_chunked(CHUNK_BYTES), on_request),
                skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent", "Content-Type"),
                allow_redirects=False,
            ) as answer:
                if isinstance(fault, Lost):
                    return _abort(request)
                return await _pass_on(request, answer, None if on_request else fault)
        except (_Broken, ClientConnectionError):
            return _abort(request)

    async def _run(self, ready: Any, stop: asyncio.Event) -> None:
        app = web.Application(client_max_size=0)
        app.router.add_route("*", "/{path:.*}", self._serve)
        timeout = ClientTimeout(total=None)
        async with ClientSession(timeout=timeout, auto_decompress=False) as self._session:
            runner = web.AppRunner(app, handler_cancellation=True)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0, shutdown_timeout=0.1)
            await site.start()
            host, port = runner.addresses[0][:2]
            self.endpoint = f"http://{host}:{port}"
            ready(asyncio.get_running_loop())
            await stop.wait()
            await runner.cleanup()


class _Broken(Exception):
    """The proxy breaks the connection on purpose."""


@contextmanager
def fault_proxy(server: str) -> Iterator[FaultProxy]:
    """Run a proxy before a server, on a loopback port of its own, in a thread."""
    proxy, stop = FaultProxy(server), asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []
    thread = Thread(target=lambda: asyncio.run(proxy._run(loops.append, stop)), daemon=True)
    thread.start()
    while not loops:
        thread.join(0.01)
        assert thread.is_alive()
    try:
        yield proxy
    finally:
        proxy.heal()
        loops[0].call_soon_threadsafe(stop.set)
        thread.join()


async def _faulty(chunks: AsyncIterator[bytes], fault: Fault | None) -> AsyncIterator[bytes]:
    seen = 0
    if fault == Cut(0):  # there may be no body to cut
        raise _Broken
    async for chunk in chunks:
        if isinstance(fault, Slow):
            await asyncio.sleep(fault.seconds)
        if isinstance(fault, Corrupt) and not seen:
            chunk = bytes([chunk[0] ^ 1]) + chunk[1:]
        if isinstance(fault, Cut) and seen + len(chunk) > fault.after:
            yield chunk[: fault.after - seen]
            raise _Broken
        seen += len(chunk)
        yield chunk


async def _pass_on(request: web.Request, answer: Any, fault: Fault | None) -> web.StreamResponse:
    passed = web.StreamResponse(status=answer.status, headers=answer.headers)
    await passed.prepare(request)
    async for chunk in _faulty(answer.content.iter_chunked(CHUNK_BYTES), fault):
        await passed.write(chunk)
    await passed.write_eof()
    return passed


def _abort(request: web.Request) -> web.StreamResponse:
    if request.transport is not None:
        with suppress(AttributeError):
            request.transport.abort()
    return web.Response(status=500)
