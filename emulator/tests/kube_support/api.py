"""Raw requests to an API server under test, as one user."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml

Json = Any


@dataclass
class Answer:
    """A response: its status code, parsed body, and headers."""

    status: int
    body: Json
    headers: Any

    @property
    def warnings(self) -> list[str]:
        return [w.partition('"')[2].rpartition('"')[0] for w in self.headers.getall("Warning", [])]


class Api:
    """Raw requests to the API server, as one user."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        bare: aiohttp.ClientSession,
        url: str,
        token: str | None,
    ) -> None:
        self._session = session
        self._bare = bare
        self.url = url
        self._token = token

    def as_token(self, token: str | None) -> Api:
        """The same server for the holder of a token, without a client certificate."""
        return Api(self._bare, self._bare, self.url, token)

    def _headers(self, content: str, accept: str) -> dict[str, str]:
        headers = {"Content-Type": content, "Accept": accept, "User-Agent": "conformance/1"}
        return headers | ({"Authorization": f"Bearer {self._token}"} if self._token else {})

    async def request(
        self,
        method: str,
        path: str,
        body: Json = None,
        content: str = "application/json",
        accept: str = "application/json",
        headers: dict[str, str] | None = None,
        **params: str,
    ) -> Answer:
        raw = None if body is None else json.dumps(body)
        headers = self._headers(content, accept) | (headers or {})
        return await self._send(method, path, raw, headers, params)

    async def send(self, method: str, path: str, text: str, **params: str) -> Answer:
        """Send a JSON body as it is written."""
        headers = self._headers("application/json", "application/json")
        return await self._send(method, path, text, headers, params)

    async def _send(
        self,
        method: str,
        path: str,
        raw: str | None,
        headers: dict[str, str],
        params: dict[str, str],
    ) -> Answer:
        async with self._session.request(
            method, self.url + path, data=raw, headers=headers, params=params
        ) as response:
            text = await response.text()
            is_json = text.startswith("{")
            return Answer(response.status, json.loads(text) if is_json else text, response.headers)

    async def get(self, path: str, **params: str) -> Answer:
        return await self.request("GET", path, **params)

    async def post(self, path: str, body: Json, **params: str) -> Answer:
        return await self.request("POST", path, body, **params)

    async def put(self, path: str, body: Json, **params: str) -> Answer:
        return await self.request("PUT", path, body, **params)

    async def delete(self, path: str, body: Json = None, **params: str) -> Answer:
        return await self.request("DELETE", path, body, **params)

    async def merge(self, path: str, body: Json, **params: str) -> Answer:
        return await self.request("PATCH", path, body, "application/merge-patch+json", **params)

    async def json_patch(self, path: str, body: Json, **params: str) -> Answer:
        return await self.request("PATCH", path, body, "application/json-patch+json", **params)

    async def strategic(self, path: str, body: Json, **params: str) -> Answer:
        media = "application/strategic-merge-patch+json"
        return await self.request("PATCH", path, body, media, **params)

    async def apply(self, path: str, body: Json, manager: str, **params: str) -> Answer:
        media = "application/apply-patch+yaml"
        return await self.request("PATCH", path, body, media, fieldManager=manager, **params)

    @asynccontextmanager
    async def watch(
        self, path: str, accept: str = "application/json", **params: str
    ) -> AsyncIterator[Callable[[], Any]]:
        """Open a watch; the callable awaits its next event, None at its end."""
        headers = self._headers("application/json", accept)
        query = {"watch": "true", "timeoutSeconds": "60", **params}
        async with self._session.get(self.url + path, headers=headers, params=query) as response:
            if response.status != 200:
                yield _fails(await response.json())
                return

            async def following() -> Json:
                line = await asyncio.wait_for(response.content.readline(), 30)
                return json.loads(line) if line else None

            yield following


def _fails(status: Json) -> Callable[[], Any]:
    async def following() -> Json:
        return {"type": "ERROR", "object": status}

    return following


async def eventually(check: Callable[[], Any], what: str, seconds: float = 60) -> Any:
    """Await `check()` until it gives something true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := await check():
            return found
        await asyncio.sleep(0.1)
    raise AssertionError(f"gave up waiting for {what}")


@asynccontextmanager
async def connect(kubeconfig: Path) -> AsyncIterator[Api]:
    """Talk to the server of a kubeconfig as its user."""
    config = yaml.safe_load(kubeconfig.read_text())
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    own, bare = (aiohttp.TCPConnector(ssl=_tls(cluster, u)) for u in (user, {}))
    async with (
        aiohttp.ClientSession(connector=own) as session,
        aiohttp.ClientSession(connector=bare) as anonymous,
    ):
        yield Api(session, anonymous, cluster["server"], user.get("token"))


def _tls(cluster: Json, user: Json) -> ssl.SSLContext:
    data, path = cluster.get("certificate-authority-data"), cluster.get("certificate-authority")
    text = base64.b64decode(data).decode() if data else Path(path).read_text()
    context = ssl.create_default_context(cadata=text)
    # Certificates made by hand for tests often lack the key identifiers that strict mode wants.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if "client-certificate-data" in user:
        with tempfile.NamedTemporaryFile() as pem:
            for field in ("client-certificate-data", "client-key-data"):
                pem.write(base64.b64decode(user[field]) + b"\n")
            pem.flush()
            context.load_cert_chain(pem.name)
    return context
