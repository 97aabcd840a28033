"""The server: one HTTPS listener on the loopback, a CA of its own, one door for all requests."""

from __future__ import annotations

import asyncio
import base64
import os
import ssl
from collections import Counter
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import trustme
import yaml
from aiohttp import web

from kube_emulator.apiserver.access.authn import Authenticator, User
from kube_emulator.apiserver.access.rbac import Authorizer, bootstrap_objects
from kube_emulator.apiserver.handlers import Handlers
from kube_emulator.apiserver.kinds import errors
from kube_emulator.apiserver.kinds.catalogue import Object, Registry
from kube_emulator.apiserver.objects.namespaces import NamespaceController
from kube_emulator.apiserver.objects.resources import Resources, Write
from kube_emulator.apiserver.objects.served import DefinitionController
from kube_emulator.apiserver.objects.storage import HISTORY, Store
from kube_emulator.apiserver.wire import discovery, openapi
from kube_emulator.apiserver.wire.representation import to_json
from kube_emulator.apiserver.wire.request import WriteOptions, parse_path

_HEALTH = ("/healthz", "/livez", "/readyz")
_BODY_LIMIT = 3 * 1024 * 1024
_NAMES = ("127.0.0.1", "localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")


class ApiServer:
    """An API server in this process.

    `async with ApiServer(directory) as server:` writes `ca.crt` and `admin.kubeconfig` (mode 0600)
    into the directory and serves `server.url` until the block ends.
    """

    def __init__(self, directory: Path, port: int = 0, history: int = HISTORY) -> None:
        self._directory = directory
        self._port = port
        self._authority = trustme.CA(organization_name="emulated cluster")
        self.ca_certificate = self._authority.cert_pem.bytes().decode()
        self.store = Store(history)
        self.registry = Registry()
        self.requests: Counter[str] = Counter()
        resources = Resources(self.store, self.registry)
        self.authenticator = Authenticator(self.store)
        self._authorizer = Authorizer(self.store)
        self._handlers = Handlers(resources, self.authenticator, self._authorizer)
        DefinitionController(self.store, self.registry)
        self._namespaces = NamespaceController(resources, self.ca_certificate)
        self._seed(resources)
        self._runner: web.AppRunner | None = None
        self._emptying: asyncio.Task[None] | None = None

    def _seed(self, resources: Resources) -> None:
        options = WriteOptions("kube-apiserver")
        for plural, body in bootstrap_objects():
            kind = self.registry.find("rbac.authorization.k8s.io", "v1", plural)
            assert kind is not None
            resources.create(Write(kind, "", "", options), body)
        classes = self.registry.find("scheduling.k8s.io", "v1", "priorityclasses")
        assert classes is not None
        for name, value in (
            ("system-cluster-critical", 2_000_000_000),
            ("system-node-critical", 2_000_001_000),
        ):
            body = {"metadata": {"name": name}, "value": value}
            resources.create(Write(classes, "", "", options), body)
        self._namespaces.create_initial()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._port}"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self._directory / "admin.kubeconfig"

    async def __aenter__(self) -> ApiServer:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._authority.issue_cert(*_NAMES).configure_cert(context)
        app = web.Application(client_max_size=_BODY_LIMIT)
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(
            app, handler_cancellation=True, shutdown_timeout=1.0, access_log=None
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, ssl_context=context)
        await site.start()
        self._port = int(self._runner.addresses[0][1])
        self._emptying = asyncio.create_task(self._namespaces.run())
        self._write_files()

    async def stop(self) -> None:
        if self._emptying is not None:
            self._emptying.cancel()
            with suppress(asyncio.CancelledError):
                await self._emptying
        for resource in self.store.names():
            self.store.drop(resource)
        if self._runner is not None:
            await self._runner.cleanup()

    def _write_files(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self._directory / "ca.crt").write_text(self.ca_certificate)
        config = kubeconfig(self.url, self.ca_certificate, self.authenticator.admin_token)
        descriptor = os.open(self.kubeconfig, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(config)

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        try:
            return await self._route(request)
        except errors.StatusError as error:
            return web.Response(
                body=to_json(error.body()),
                status=error.code,
                headers=error.headers,
                content_type="application/json",
            )
        except ConnectionResetError:
            return web.Response(status=499)

    async def _route(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        if path in _HEALTH or path.startswith(tuple(h + "/" for h in _HEALTH)):
            return web.Response(text="ok")
        user = self.authenticator.authenticate(request.headers.get("Authorization", ""))
        if "Impersonate-User" in request.headers:
            raise errors.not_implemented("impersonation")
        asked = parse_path(request.method, path, request.query)
        if asked is None or (not asked.resource):
            return self._serve_path(request, user)
        suffix = f"/{asked.subresource}" if asked.subresource else ""
        self.requests[f"{asked.verb} {asked.resource}{suffix}"] += 1
        self._authorizer.authorize(user, asked)
        return await self._handlers.serve(request, asked, user)

    def _serve_path(self, request: web.Request, user: User) -> web.StreamResponse:
        path = request.path.rstrip("/") or "/"
        if not self._authorizer.allows_path(user, request.method.lower(), path):
            message = f'forbidden: User "{user.name}" cannot get path "{path}"'
            raise errors.StatusError(403, "Forbidden", message, details={})
        if path == "/debug/requests":
            return web.json_response(dict(self.requests))
        found = self._document(request, path)
        if found is None:
            raise errors.page_not_found()
        return found

    def _document(self, request: web.Request, path: str) -> web.StreamResponse | None:
        found: Object | None = None
        content_type = "application/json"
        if path in ("/api", "/apis") and discovery.wants_aggregated(
            request.headers.get("Accept", "")
        ):
            found = discovery.aggregated(self.registry, path == "/api")
            response = web.Response(body=to_json(found))
            response.headers["Content-Type"] = discovery.AGGREGATED
            return response
        match path.strip("/").split("/"):
            case ["version"]:
                found = discovery.VERSION
            case ["api"]:
                found = discovery.core_versions(f"127.0.0.1:{self._port}")
            case ["apis"]:
                found = discovery.group_list(self.registry)
            case ["apis", group]:
                found = discovery.group_object(self.registry, group)
            case ["api", version]:
                found = discovery.resource_list(self.registry, "", version)
            case ["apis", group, version]:
                found = discovery.resource_list(self.registry, group, version)
            case ["openapi", "v3"]:
                found = openapi.index(self.registry)
            case ["openapi", "v3", "api", version]:
                found = openapi.document(self.registry, "", version)
            case ["openapi", "v3", "apis", group, version]:
                found = openapi.document(self.registry, group, version)
        if found is None:
            return None
        return web.Response(body=to_json(found), content_type=content_type)


def kubeconfig(url: str, ca_certificate: str, token: str) -> str:
    """A kubeconfig for one user of one server, as YAML."""
    authority = base64.b64encode(ca_certificate.encode()).decode()
    name = "emulated"
    cluster = {"server": url, "certificate-authority-data": authority}
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": name,
            "clusters": [{"name": name, "cluster": cluster}],
            "users": [{"name": name, "user": {"token": token}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        }
    )
