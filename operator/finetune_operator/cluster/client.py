"""The only Kubernetes client: raw JSON objects over `kubernetes.aio`'s authenticated transport."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Self
from urllib.parse import urlencode

import aiohttp
from aiohttp.http import HttpProcessingError  # a line that is too long
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.rest import RESTClientObject
from kubernetes.aio.config import load_incluster_config, load_kube_config

from finetune_api.job import KIND
from finetune_operator.cluster.answers import Page, change, is_object, page_of, refusal
from finetune_operator.cluster.api import (
    ApiError,
    Change,
    Listing,
    NotLeading,
    Unreachable,
    Unreadable,
)
from finetune_operator.cluster.clock import ServerClock
from finetune_operator.cluster.json_text import read, write
from finetune_operator.cluster.patch import merge_patch
from finetune_operator.job.names import MANAGER, Object
from finetune_operator.job.resources import EVENT, POD, Resource

_TIMEOUT_SECONDS = 30.0
# How long a watch lasts, so that several servers share them anew, and all do not end together.
_WATCH_SECONDS = (300, 600)
# A watch without a word for so long is dead: a server sends a bookmark every minute.
_SILENCE_SECONDS = 70.0
_LINE = 2**22  # bytes that a watch may say of an object, of which a server stores a third
# Objects of one answer; a pod or a workload is tens of KiB as long as it is not packed. Anyone may
# fill ConfigMaps with a MiB and Events with much of one.
_PAGE = 200
_PAGES = {"ConfigMap": 100, EVENT: 50}
_EVENT_PAGES = 10
_JSON = "application/json"
_MERGE = "application/merge-patch+json"
_APPLY = "application/apply-patch+yaml"

Observer = Callable[[str, str, int], None]  # verb, kind, HTTP code


class Cluster:
    """`Api` over HTTPS for the kinds in `resources`; `observer` is told of every answer.

    `may_write` is asked before each write, and what it denies is not sent. `clock` hears the time
    from every answer.
    """

    def __init__(
        self,
        configuration: Configuration,
        resources: Mapping[str, Resource],
        timeout: float = _TIMEOUT_SECONDS,
        clock: ServerClock | None = None,
    ) -> None:
        self.clock = clock or ServerClock()
        self.configuration = configuration
        self._resources = resources
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._silence = aiohttp.ClientTimeout(sock_connect=timeout, sock_read=_SILENCE_SECONDS)
        self._session: aiohttp.ClientSession | None = None
        self.observer: Observer = lambda verb, kind, code: None
        self.may_write: Callable[[], bool] = lambda: True

    @classmethod
    async def connect(cls, resources: Mapping[str, Resource]) -> Self:
        """Read the pod's ServiceAccount or the kubeconfig; no request is sent yet."""
        configuration = Configuration()
        in_pod = "KUBERNETES_SERVICE_HOST" in os.environ and "KUBECONFIG" not in os.environ
        if in_pod:
            load_incluster_config(client_configuration=configuration)
        else:
            await load_kube_config(client_configuration=configuration)
        return cls(configuration, resources)

    def apart(self, timeout: float) -> Cluster:
        """Return a client with connections of its own, which this one's requests do not hold up."""
        return Cluster(self.configuration, self._resources, timeout, self.clock)

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    def session(self, *middlewares: aiohttp.ClientMiddlewareType) -> aiohttp.ClientSession:
        """Return connections to the server for the caller, who closes them. Each request bears the
        token of its time, which is renewed with a pod's."""

        async def authorize(
            request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType
        ) -> aiohttp.ClientResponse:
            token = await self.configuration.get_api_key_with_prefix("BearerToken")
            if token:
                request.headers["Authorization"] = str(token)
            request.server_hostname = self.configuration.tls_server_name or None
            return await send(request)

        tls = RESTClientObject(self.configuration).ssl_context
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=tls),  # no limit: a watch holds one
            middlewares=(authorize, *middlewares),
            cookie_jar=aiohttp.DummyCookieJar(),
            proxy=self.configuration.proxy,  # none of the environment: that takes threads to find
            read_bufsize=_LINE // 2,
        )

    async def list_objects(
        self, kind: str, namespace: str | None, selector: str, page: str = ""
    ) -> Listing:
        """Return a page of the objects that match a label selector; "" is the first."""
        resource = self._resources[kind]
        query = {"limit": str(_PAGES.get(kind, _PAGE))}
        query |= {"labelSelector": selector} if selector else {}
        query |= {"continue": page} if page else {}
        found = await self._page(kind, resource.path(namespace), query)
        # Items of a list carry neither, though single objects do.
        said = {"apiVersion": resource.api_version, "kind": kind}
        items = tuple({**said, **item} for item in found.items)
        return Listing(items, found.version, found.following)

    async def watch(
        self, kind: str, namespace: str | None, selector: str, version: str
    ) -> AsyncGenerator[Change]:
        """Yield what has changed since a version, until the server has enough.

        Raises Unreadable for what is too large, or no object of an API server."""
        resource = self._resources[kind]
        query = {"watch": "true", "allowWatchBookmarks": "true", "resourceVersion": version}
        query |= {"timeoutSeconds": str(random.randint(*_WATCH_SECONDS))}
        query |= {"labelSelector": selector} if selector else {}
        path = f"{resource.path(namespace)}?{urlencode(query)}"
        said = {"apiVersion": resource.api_version, "kind": kind}
        try:
            answer = await self._open("GET", path, within=self._silence)
            try:
                if answer.status >= 400:
                    raise refusal(answer.status, await answer.read())
                async for line in answer.content:
                    yield change(line, said)
            finally:
                answer.close()
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            raise Unreachable(f"GET {path}: {error!r}") from error
        except (HttpProcessingError, ValueError, LookupError, RecursionError) as error:
            raise Unreadable(f"GET {path}: {type(error).__name__}") from error

    async def get(self, kind: str, namespace: str, name: str) -> Object | None:
        """Return an object; None if there is none."""
        path = self._resources[kind].path(namespace, name)
        try:
            found = await self._send("get", kind, "GET", path)
        except ApiError as error:
            if error.code == 404:
                return None
            raise
        if not is_object(found):
            raise Unreachable(f"GET {path}: the answer is no object")
        return found

    async def create(self, body: Object) -> Object:
        """Create and return what was stored. ApiError 409 AlreadyExists if the name is taken."""
        path = self._resources[body["kind"]].path(body["metadata"]["namespace"])
        query = f"?fieldManager={MANAGER}"
        return await self._send("create", body["kind"], "POST", path + query, body)

    async def apply(self, body: Object) -> Object:
        """Server-side apply, with force: the operator's fields are the operator's."""
        metadata = body["metadata"]
        path = self._resources[body["kind"]].path(metadata["namespace"], metadata["name"])
        query = f"?fieldManager={MANAGER}&force=true"
        return await self._send("apply", body["kind"], "PATCH", path + query, body, _APPLY)

    async def replace(self, body: Object) -> Object:
        """Replace and return what was stored. ApiError 409 Conflict if it is not the newest."""
        metadata = body["metadata"]
        path = self._resources[body["kind"]].path(metadata["namespace"], metadata["name"])
        query = f"?fieldManager={MANAGER}"
        return await self._send("update", body["kind"], "PUT", path + query, body)

    async def delete(
        self, kind: str, namespace: str, name: str, uid: str, *, at_once: bool = False
    ) -> None:
        """Delete that very object, its dependents in the background; no error if it is gone.

        `at_once` is for pods: without the time to end, and without their nodes' confirmation.
        """
        options: Object = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": {"uid": uid},
        }
        if at_once:
            options["gracePeriodSeconds"] = 0
        path = self._resources[kind].path(namespace, name)
        try:
            await self._send("delete", kind, "DELETE", path, options)
        except ApiError as error:
            if error.code not in (404, 409):  # gone, or another object has the name
                raise

    async def patch_status(self, body: Object, status: Object) -> Object:
        """Make `status` the status of `body`; ApiError 409 Conflict if it is not the newest."""
        metadata = body["metadata"]
        patch = {
            "metadata": {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]},
            "status": merge_patch(body.get("status") or {}, status),
        }
        path = self._resources[KIND].path(metadata["namespace"], metadata["name"], "status")
        return await self._send("patch", f"{KIND}/status", "PATCH", path, patch, _MERGE)

    async def events_of(self, namespace: str, uid: str) -> list[Object]:
        """Return the Events about an object; of very many some, as anyone may write them."""
        events: list[Object] = []
        query = {"limit": str(_PAGES[EVENT]), "fieldSelector": f"involvedObject.uid={uid}"}
        for _ in range(_EVENT_PAGES):
            page = await self._page(EVENT, self._resources[EVENT].path(namespace), query)
            events += page.items
            if not page.following:
                break
            query["continue"] = page.following
        return events

    async def has_logged(self, namespace: str, pod: str, container: str, seconds: int) -> bool:
        """Tell whether a container has written to its log within so many seconds."""
        # The first byte says it; what a log holds is nobody's business here.
        query = urlencode({"container": container, "sinceSeconds": seconds, "limitBytes": 1})
        path = f"{self._resources[POD].path(namespace, pod, 'log')}?{query}"
        return bool(await self._answer("get", f"{POD}/log", "GET", path, accept="*/*"))

    async def patch_event(self, namespace: str, name: str, patch: Object) -> None:
        """Merge into an Event."""
        path = self._resources[EVENT].path(namespace, name)
        await self._send("patch", EVENT, "PATCH", path, patch, _MERGE)

    async def _page(self, kind: str, path: str, query: Mapping[str, str]) -> Page:
        asked = f"{path}?{urlencode(query)}"
        answer = await self._send("list", kind, "GET", asked)
        if (page := page_of(answer)) is None:
            raise Unreachable(f"GET {asked}: the answer is no list of objects")
        return page

    async def _send(
        self,
        verb: str,
        kind: str,
        method: str,
        path: str,
        body: Object | None = None,
        content: str = _JSON,
    ) -> Object:
        payload = await self._answer(verb, kind, method, path, body, content)
        try:
            found: Object = read(payload)
        except (ValueError, RecursionError) as error:  # of something between here and the server
            text = f"{method} {path}: the answer is no JSON that can be read"
            raise Unreachable(f"{text} ({type(error).__name__})") from error
        if not isinstance(found, dict):
            raise Unreachable(f"{method} {path}: the answer is no object")
        return found

    async def _answer(
        self,
        verb: str,
        kind: str,
        method: str,
        path: str,
        body: Object | None = None,
        content: str = _JSON,
        accept: str = _JSON,
    ) -> bytes:
        sent = self.clock.own()
        try:
            answer = await self._open(method, path, body, content, accept)
            came = self.clock.own()
            payload: bytes = await answer.read()
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            raise Unreachable(f"{method} {path}: {error!r}") from error
        self.observer(verb, kind, answer.status)
        if answer.status >= 400:
            raise refusal(answer.status, payload)
        if "Age" not in answer.headers:  # a proxy's copy says when it was made
            self.clock.hear(answer.headers.get("Date"), sent, came)
        return payload

    async def _open(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        content: str = _JSON,
        accept: str = _JSON,
        within: aiohttp.ClientTimeout | None = None,
    ) -> aiohttp.ClientResponse:
        """Send a request; what is answered has yet to be read."""
        if method != "GET" and not self.may_write():
            raise NotLeading(f"{method} {path}: this operator does not lead")
        if self._session is None:
            self._session = self.session()
        return await self._session.request(
            method,
            str(self.configuration.host).rstrip("/") + path,
            headers={"Content-Type": content, "Accept": accept},
            data=None if body is None else write(body),
            timeout=within or self._timeout,
        )
