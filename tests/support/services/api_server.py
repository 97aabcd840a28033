"""An API server that answers what a test tells it to, and the objects that such answers hold."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

Json = Any
LEASE = {
    "apiVersion": "coordination.k8s.io/v1",
    "kind": "Lease",
    "metadata": {"name": "bot-a1", "uid": "u1", "namespace": "team"},
}


class ApiServer:
    """Answers with what a test has put in `answers`, in order; keeps what was asked."""

    def __init__(self) -> None:
        self.asked: list[web.Request] = []
        self.bodies: list[Json] = []
        self.answers: list[tuple[int, Json]] = []
        self.headers: dict[str, str] = {}

    async def handle(self, request: web.Request) -> web.Response:
        self.asked.append(request)
        text = await request.text()
        self.bodies.append(json.loads(text) if text else None)
        code, body = self.answers.pop(0)
        if isinstance(body, str):
            return web.Response(status=code, text=body, headers=self.headers)
        return web.json_response(body, status=code, headers=self.headers)


def named(name: str) -> Json:
    return {"metadata": {"name": name, "uid": f"uid-{name}"}}


def status(code: int, reason: str, message: str = "no") -> tuple[int, Json]:
    return code, {"kind": "Status", "reason": reason, "message": message}
