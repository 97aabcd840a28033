"""Loopback ports, and HTTP services on them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ssl import SSLContext
from threading import Event, Thread
from typing import Protocol

from finetune_trainer.process.ports import HeldPort

_MOST = 64  # a server listens long before so many others are begun
_held: deque[HeldPort] = deque()


def free_port() -> int:
    """Return a port that nobody listens on, nor is given until a server of the test does."""
    while len(_held) >= _MOST:
        _held.popleft().close()
    _held.append(HeldPort())
    return _held[-1].number


class Service(Protocol):
    """What is served; `hang`, if set, is waited for before any answer."""

    url: str
    hang: Event | None


@contextmanager
def listening(
    service: Service, handler: type[BaseHTTPRequestHandler], tls: SSLContext | None = None
) -> Iterator[None]:
    """Serve by a handler that finds the service as `own`; sets the service's url."""
    listener = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (handler,), {"own": service}))
    if tls is not None:
        listener.socket = tls.wrap_socket(listener.socket, server_side=True)
    service.url = f"http{'s' if tls else ''}://127.0.0.1:{listener.server_port}"
    Thread(target=listener.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield
    finally:
        if service.hang is not None:
            service.hang.set()
        listener.shutdown()
        listener.server_close()
