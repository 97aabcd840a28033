"""A raw-JSON Kubernetes client and informer for controllers.

`kubernetes.aio` reads the kubeconfig and does TLS and authentication; objects stay plain dicts,
because a node must pass through fields that it does not know.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlencode

import aiohttp
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.rest import RESTClientObject
from kubernetes.aio.config import load_kube_config

Object = dict[str, Any]
OnChange = Callable[[Object | None, Object | None], None]

log = logging.getLogger(__name__)

REQUEST_TIMEOUT = aiohttp.ClientTimeout(total=30)
WATCH_SECONDS = 300
RETRY_SECONDS = 0.5
STREAM_LIMIT = 16 * 2**20

MERGE_PATCH = "application/merge-patch+json"


class ApiError(Exception):
    """The API server refused a request or could not be reached.

    `status` is the HTTP code, 0 for a lost connection; `reason` is the Status reason.
    """

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message


@dataclass(frozen=True)
class Resource:
    """One REST resource: `api` is "api/v1" or "apis/<group>/<version>"."""

    api: str
    plural: str

    def path(self, namespace: str | None = None, name: str | None = None, sub: str = "") -> str:
        scope = f"/namespaces/{quote(namespace)}" if namespace else ""
        tail = f"/{quote(name)}" if name else ""
        return f"/{self.api}{scope}/{self.plural}{tail}" + (f"/{sub}" if sub else "")


PODS = Resource("api/v1", "pods")
NODES = Resource("api/v1", "nodes")
SERVICES = Resource("api/v1", "services")
SECRETS = Resource("api/v1", "secrets")
CONFIG_MAPS = Resource("api/v1", "configmaps")
EVENTS = Resource("api/v1", "events")
CLAIMS = Resource("api/v1", "persistentvolumeclaims")
SERVICE_ACCOUNTS = Resource("api/v1", "serviceaccounts")
DEPLOYMENTS = Resource("apis/apps/v1", "deployments")
REPLICA_SETS = Resource("apis/apps/v1", "replicasets")
CRDS = Resource("apis/apiextensions.k8s.io/v1", "customresourcedefinitions")


class Client:
    """Requests to one API server; make it with `Client.connect`, end it with `close`."""

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration
        self._rest = RESTClientObject(configuration)

    @classmethod
    async def connect(cls, kubeconfig: Path) -> Self:
        """Read `kubeconfig`; no request is sent yet."""
        configuration = Configuration()
        # retries would repeat a POST-like DELETE with preconditions; callers are level-triggered
        configuration.retries = None
        # the server is on this machine; a proxy from the environment cannot reach it
        configuration.client_session_kwargs = {"trust_env": False}
        await load_kube_config(str(kubeconfig), client_configuration=configuration)
        return cls(configuration)

    @property
    def server(self) -> str:
        """The API server's base URL, without a trailing slash."""
        return str(self.configuration.host).rstrip("/")

    def ca_pem(self) -> str:
        """The certificate authority that the kubeconfig trusts, as PEM."""
        path = self.configuration.ssl_ca_cert
        return Path(path).read_text() if path else ""

    async def close(self) -> None:
        await self._rest.close()

    async def get(self, path: str) -> Object:
        return await self._json("GET", path)

    async def text(self, path: str) -> str:
        """The body of a resource that is not JSON: a log.

        Raises:
            ApiError: the API server refuses it.
        """
        async with _connection():
            response = await self._send("GET", path, None, "application/json", REQUEST_TIMEOUT)
            payload = await response.read()
        if response.status >= 400:
            raise _refusal(response.status, payload)
        return payload.decode(errors="replace")

    async def create(self, path: str, body: Object) -> Object:
        return await self._json("POST", path, body)

    async def replace(self, path: str, body: Object) -> Object:
        return await self._json("PUT", path, body)

    async def patch(self, path: str, body: Object) -> Object:
        return await self._json("PATCH", path, body, MERGE_PATCH)

    async def delete(
        self,
        path: str,
        *,
        uid: str | None = None,
        grace_seconds: int | None = None,
        propagation: str | None = None,
    ) -> None:
        """Delete; an object that is gone already (or has another uid by now) is no error."""
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        if propagation is not None:
            options["propagationPolicy"] = propagation
        try:
            await self._json("DELETE", path, options)
        except ApiError as error:
            if error.status not in (404, 409):
                raise

    async def _json(
        self, method: str, path: str, body: Object | None = None, content: str = "application/json"
    ) -> Object:
        async with _connection():
            response = await self._send(method, path, body, content, REQUEST_TIMEOUT)
            payload = await response.read()
        if response.status >= 400:
            raise _refusal(response.status, payload)
        result: Object = json.loads(payload)
        return result

    async def _send(
        self,
        method: str,
        path: str,
        body: Object | None,
        content: str,
        limits: aiohttp.ClientTimeout,
    ) -> aiohttp.ClientResponse:
        headers = {"Content-Type": content, "Accept": "application/json"}
        token = await self.configuration.get_api_key_with_prefix("BearerToken")
        if token:
            headers["Authorization"] = token
        answer = await self._rest.request(
            method, self.server + path, headers=headers, body=body, _request_timeout=limits
        )
        response: aiohttp.ClientResponse = answer.response
        return response

    async def watch(self, path: str, **query: str) -> AsyncGenerator[tuple[str, Object]]:
        """Yield (type, object) until the server ends the stream; ERROR raises `ApiError`."""
        query |= {"watch": "true", "timeoutSeconds": str(WATCH_SECONDS)}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=WATCH_SECONDS + 30)
        url = f"{path}?{urlencode(query)}"
        async with _connection():
            response = await self._send("GET", url, None, "application/json", timeout)
        async with _connection(), contextlib.aclosing(_lines(response)) as lines:
            if response.status >= 400:
                raise _refusal(response.status, await response.read())
            async for line in lines:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    status = event["object"]
                    raise ApiError(status["code"], status["reason"], status.get("message", ""))
                yield event["type"], event["object"]


@contextlib.asynccontextmanager
async def _connection() -> AsyncIterator[None]:
    """Give every failure of the connection the one type that callers retry on."""
    try:
        yield
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise ApiError(0, "Unreachable", f"{type(error).__name__}: {error}") from error


async def _lines(response: aiohttp.ClientResponse) -> AsyncGenerator[bytes]:
    """Split the stream ourselves: `readline` refuses lines above its buffer, objects reach 1 MB."""
    rest = b""
    try:
        async for chunk in response.content.iter_any():
            *whole, rest = (rest + chunk).split(b"\n")
            if len(rest) > STREAM_LIMIT:
                raise ApiError(500, "InternalError", "a watch event exceeds the stream limit")
            for line in whole:
                if line.strip():
                    yield line
    finally:
        response.close()


def _refusal(status: int, payload: bytes) -> ApiError:
    try:
        body = json.loads(payload)
    except ValueError:
        return ApiError(status, "Unknown", payload[:500].decode(errors="replace"))
    return ApiError(status, body.get("reason", "Unknown"), body.get("message", ""))


def key_of(item: Object) -> str:
    """`namespace/name`, or `name` for cluster-scoped objects."""
    meta = item["metadata"]
    return f"{meta['namespace']}/{meta['name']}" if "namespace" in meta else str(meta["name"])


class Informer:
    """A live copy of one resource: `items` by key, `on_change(old, new)` for every difference."""

    def __init__(self, client: Client, path: str, on_change: OnChange, selector: str = "") -> None:
        self._client = client
        self._path = path
        self._on_change = on_change
        self._query = {"fieldSelector": selector} if selector else {}
        self.items: dict[str, Object] = {}
        self.synced = asyncio.Event()

    async def run(self) -> None:
        """List and watch until cancelled; refusals and lost connections are retried."""
        while True:
            try:
                version = await self._list()
                self.synced.set()
                await self._follow(version)
            except ApiError as error:
                log.info("watch of %s: %s; listing again", self._path, error)
                await asyncio.sleep(RETRY_SECONDS)

    async def _list(self) -> str:
        query = f"?{urlencode(self._query)}" if self._query else ""
        answer = await self._client.get(self._path + query)
        # a list's items leave out what the list's own kind says
        kind = {"apiVersion": answer["apiVersion"], "kind": answer["kind"].removesuffix("List")}
        listed = {key_of(item): kind | item for item in answer["items"]}
        for key in [key for key in self.items if key not in listed]:
            self._put(key, None)
        for key, item in listed.items():
            self._put(key, item)
        return str(answer["metadata"]["resourceVersion"])

    async def _follow(self, version: str) -> None:
        while True:
            stream = self._client.watch(
                self._path, resourceVersion=version, allowWatchBookmarks="true", **self._query
            )
            async with contextlib.aclosing(stream):
                async for kind, item in stream:
                    version = item["metadata"]["resourceVersion"]
                    if kind != "BOOKMARK":
                        self._put(key_of(item), None if kind == "DELETED" else item)

    def note(self, created: Object) -> None:
        """Show an object that was created just now before the watch does: a controller that counts
        what it has would otherwise create it twice."""
        self.items.setdefault(key_of(created), created)

    def _put(self, key: str, new: Object | None) -> None:
        old = self.items.get(key)
        if new is None:
            self.items.pop(key, None)
        else:
            self.items[key] = new
        if old != new:
            self._on_change(old, new)
