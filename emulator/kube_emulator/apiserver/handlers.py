"""One request for a resource, from its verb to its answer."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

from aiohttp import web

from kube_emulator.apiserver.access.authn import Authenticator, User
from kube_emulator.apiserver.access.rbac import Authorizer
from kube_emulator.apiserver.kinds import errors
from kube_emulator.apiserver.kinds.catalogue import NOT_EMULATED, VERBS, Kind, Object, Registry
from kube_emulator.apiserver.objects import pods
from kube_emulator.apiserver.objects.deletion import DeleteOptions, delete
from kube_emulator.apiserver.objects.lists import Lister, selection, version_of
from kube_emulator.apiserver.objects.resources import FinalCheck, Resources, Write
from kube_emulator.apiserver.objects.watch import Watch, WatchRequest
from kube_emulator.apiserver.wire.decoding import decode_body
from kube_emulator.apiserver.wire.patches import APPLY_PATCH
from kube_emulator.apiserver.wire.representation import Form, many, negotiate, one, to_json
from kube_emulator.apiserver.wire.request import ResourceRequest, WriteOptions, flag, write_options

_LONGEST_WATCH = 3600.0


class Handlers:
    """Serves every verb of every resource; who may is already decided."""

    def __init__(
        self, resources: Resources, authenticator: Authenticator, authorizer: Authorizer
    ) -> None:
        self._resources = resources
        self._store = resources.store
        self._registry: Registry = resources.registry
        self._authenticator = authenticator
        self._authorizer = authorizer
        self._lister = Lister(self._store)

    def kind_of(self, asked: ResourceRequest) -> Kind:
        """The kind asked for. Raises StatusError 404, or 501 for what real servers have."""
        kind = self._registry.find(asked.group, asked.version, asked.resource)
        if kind is not None:
            return kind
        if what := NOT_EMULATED.get((asked.group, asked.resource)):
            raise errors.not_implemented(what)
        raise errors.page_not_found()

    async def serve(
        self, request: web.Request, asked: ResourceRequest, user: User
    ) -> web.StreamResponse:
        kind = self.kind_of(asked)
        if asked.namespace and not kind.namespaced and kind.plural != "namespaces":
            raise errors.page_not_found()
        if asked.subresource:
            return await self._subresource(request, asked, kind, user)
        if asked.verb not in VERBS:
            raise errors.method_not_allowed()
        verbs: dict[
            str, Callable[[web.Request, ResourceRequest, Kind, User], Awaitable[web.StreamResponse]]
        ] = {
            "get": self._get,
            "list": self._list,
            "watch": self._watch,
            "create": self._create,
            "update": self._write,
            "patch": self._write,
            "delete": self._delete,
            "deletecollection": self._delete_collection,
        }
        return await verbs[asked.verb](request, asked, kind, user)

    async def _get(
        self, request: web.Request, asked: ResourceRequest, kind: Kind, user: User
    ) -> web.StreamResponse:
        obj = self._resources.get(kind, _namespace(kind, asked), asked.name)
        return _answer(kind, obj, _form(request))

    async def _list(
        self, request: web.Request, asked: ResourceRequest, kind: Kind, user: User
    ) -> web.StreamResponse:
        form = _form(request)
        objects, meta = self._lister.page(kind, _namespace(kind, asked), request.query)
        return _json(many(kind, objects, meta, form))

    async def _watch(
        self, request: web.Request, asked: ResourceRequest, kind: Kind, user: User
    ) -> web.StreamResponse:
        query = request.query
        seconds = float(query.get("timeoutSeconds") or 0) or random.uniform(1800, _LONGEST_WATCH)
        watch = Watch(
            self._store,
            WatchRequest(
                kind=kind,
                namespace=_namespace(kind, asked),
                selects=selection(kind, query),
                form=_form(request),
                since=version_of(query),
                seconds=seconds,
                bookmarks=flag(query, "allowWatchBookmarks"),
                initial_events=flag(query, "sendInitialEvents"),
            ),
        )
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        await watch.run(response)
        return response

    async def _create(
        self, request: web.Request, asked: ResourceRequest, kind: Kind, user: User
    ) -> web.StreamResponse:
        options = _options(request)
        body = await self._body(request, kind, options)
        if asked.name:
            raise errors.method_not_allowed()
        write = Write(kind, _namespace(kind, asked), "", options, final_check=self._grants(user))
        obj = self._resources.create(write, body)
        return _answer(kind, obj, _form(request), 201, options)

    async def _write(
        self, request: web.Request, asked: ResourceRequest, kind: Kind, user: User
    ) -> web.StreamResponse:
        if not asked.name:
            raise errors.method_not_allowed()
        options = _options(request)
        body = await self._body(request, kind, options)
        write = Write(
            kind,
            _namespace(kind, asked),
            asked.name,
            options,
            asked.subresource,
            self._grants(user),
        )
        if asked.verb == "update":
            obj = self._resources.replace(write, body)
            return _answer(kind, obj, _form(request), 200, options)
        if request.content_type == APPLY_PATCH and not request.query.get("fieldManager"):
            raise errors.field_manager_required()
        known = self._resources.find(kind, write.namespace, asked.name)
        obj = self._resources.patch(write, request.content_type, body)
        return _answer(kind, obj, _form(request), 200 if known else 201, options)

    async def _delete(
        self, request: web.Request, asked: ResourceRequest, kind: Kind, user: User
    ) -> web.StreamResponse:
        options = _options(request)
        how = await _delete_options(request, options)
        obj = delete(self._resources, kind, _namespace(kind, asked), asked.name, how, options)
        return _answer(kind, obj, _form(request))

    async def _delete_collection(
        self, request: web.Request, asked: ResourceRequest, kind: Kind, user: User
    ) -> web.StreamResponse:
        options = _options(request)
        how = await _delete_options(request, options)
        namespace = _namespace(kind, asked)
        objects, meta = self._lister.page(kind, namespace, request.query)
        for obj in objects:
            place = obj["metadata"].get("namespace", "")
            delete(self._resources, kind, place, obj["metadata"]["name"], how, options)
        return _json(many(kind, objects, meta, _form(request)))

    async def _subresource(
        self, request: web.Request, asked: ResourceRequest, kind: Kind, user: User
    ) -> web.StreamResponse:
        if asked.subresource == "status" and kind.status:
            if asked.verb == "get":
                return await self._get(request, asked, kind, user)
            if asked.verb in ("update", "patch"):
                return await self._write(request, asked, kind, user)
            raise errors.method_not_allowed()
        if (kind.plural, asked.subresource) == ("pods", "log") and asked.verb == "get":
            pod = self._resources.get(kind, asked.namespace, asked.name)
            url = pods.log_address(self._resources, pod, dict(request.query))
            return await pods.stream_log(request, url)
        if asked.verb == "create" and any(s[0] == asked.subresource for s in kind.subresources):
            return await self._post_subresource(request, asked, kind)
        if asked.subresource in _NOT_EMULATED_SUBRESOURCES:
            raise errors.not_implemented(f"the subresource {asked.resource}/{asked.subresource}")
        raise errors.page_not_found()

    async def _post_subresource(
        self, request: web.Request, asked: ResourceRequest, kind: Kind
    ) -> web.StreamResponse:
        options = _options(request)
        body = decode_body(await request.read(), request.headers.get("Content-Type", ""), options)
        if asked.subresource == "token":
            account = self._resources.get(kind, asked.namespace, asked.name)
            return _json(self._authenticator.request_token(account, body), 201)
        act = pods.bind if asked.subresource == "binding" else pods.evict
        return _json(act(self._resources, kind, asked.namespace, asked.name, body, options), 201)

    async def _body(self, request: web.Request, kind: Kind, options: WriteOptions) -> Object:
        raw, media = await request.read(), request.headers.get("Content-Type", "")
        body: Object = decode_body(raw, media, options, kind)
        return body

    def _grants(self, user: User) -> FinalCheck:
        return lambda kind, new, old: self._authorizer.check_grant(user, kind, new, old)


_NOT_EMULATED_SUBRESOURCES = (
    "scale",
    "exec",
    "attach",
    "portforward",
    "proxy",
    "ephemeralcontainers",
    "resize",
    "finalize",
)


def _namespace(kind: Kind, asked: ResourceRequest) -> str:
    return asked.namespace if kind.namespaced else ""


def _form(request: web.Request) -> Form:
    return negotiate(request.headers.get("Accept", ""), request.query.get("includeObject", ""))


def _options(request: web.Request) -> WriteOptions:
    kind = _OPTIONS[request.method]
    return write_options(request.query, request.headers.get("User-Agent", ""), kind)


_OPTIONS = {
    "POST": "CreateOptions",
    "PUT": "UpdateOptions",
    "PATCH": "PatchOptions",
    "DELETE": "DeleteOptions",
}


async def _delete_options(request: web.Request, options: WriteOptions) -> DeleteOptions:
    raw = await request.read()
    body = decode_body(raw, request.headers.get("Content-Type", "")) if raw else None
    if isinstance(body, dict) and body.get("dryRun"):
        options.dry_run = True
    return DeleteOptions.parse(body, dict(request.query))


def _json(
    value: Object, status: int = 200, options: WriteOptions | None = None
) -> web.StreamResponse:
    response = web.Response(body=to_json(value), status=status, content_type="application/json")
    for warning in dict.fromkeys(options.warnings if options else ()):
        text = warning.replace("\\", "\\\\").replace('"', '\\"')
        response.headers.add("Warning", f'299 - "{text}"')
    return response


def _answer(
    kind: Kind, obj: Object, form: Form, status: int = 200, options: WriteOptions | None = None
) -> web.StreamResponse:
    return _json(one(kind, obj, form), status, options)
