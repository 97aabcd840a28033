"""Watches: the changes of one resource, filtered and written as they come."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Protocol

from kube_emulator.apiserver.kinds import errors
from kube_emulator.apiserver.kinds.catalogue import Kind, Object
from kube_emulator.apiserver.objects.storage import Change, Store, TooOld
from kube_emulator.apiserver.wire.representation import Form, served, to_json
from kube_emulator.apiserver.wire.selectors import Predicate
from kube_emulator.apiserver.wire.tables import partial_metadata, table

_BOOKMARK_SECONDS = 60.0
INITIAL_EVENTS_END = "k8s.io/initial-events-end"


class Sink(Protocol):
    """Where events are written; raises ConnectionResetError once the client is gone."""

    async def write(self, data: bytes) -> None: ...


@dataclass(frozen=True)
class WatchRequest:
    """What to watch. `since` None starts with every object that is there, as ADDED events."""

    kind: Kind
    namespace: str
    selects: Predicate | None
    form: Form
    since: int | None
    seconds: float
    bookmarks: bool
    initial_events: bool


class Watch:
    """One client's watch."""

    def __init__(self, store: Store, request: WatchRequest) -> None:
        """Subscribe. Raises StatusError 410 if the asked version is no longer in the history."""
        self._store = store
        self._request = request
        self._headers_sent = False
        resource = request.kind.storage_key
        current = store.version
        if request.since is not None and request.since > current:
            raise errors.too_large_version(request.since, current)
        since = current if request.since is None or request.initial_events else request.since
        try:
            self._subscription = store.subscribe(resource, since)
        except TooOld as error:
            message = f"too old resource version: {since} ({error.oldest})"
            raise errors.expired(message) from error
        snapshot = request.since is None or request.initial_events
        self._present = self._snapshot() if snapshot else []
        self._version = since

    def _snapshot(self) -> list[Object]:
        request = self._request
        objects = self._store.list(request.kind.storage_key, request.namespace)
        return [o for o in objects if request.selects is None or request.selects(o)]

    async def run(self, sink: Sink) -> None:
        """Write events until the time is over, the resource goes, or the client does."""
        try:
            await self._stream(sink)
        finally:
            self._store.unsubscribe(self._request.kind.storage_key, self._subscription)

    async def _stream(self, sink: Sink) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + self._request.seconds
        for obj in self._present:
            await sink.write(self._event("ADDED", obj))
        if self._request.initial_events:
            await sink.write(self._bookmark({INITIAL_EVENTS_END: "true"}))
        while (left := end - loop.time()) > 0:
            try:
                wait = min(left, _BOOKMARK_SECONDS)
                change = await asyncio.wait_for(self._subscription.next(), wait)
            except TimeoutError:
                if self._request.bookmarks:
                    await sink.write(self._bookmark({}))
                continue
            if change is None:
                return
            event = self._visible(change)
            self._version = change.version
            if event is not None:
                await sink.write(event)

    def _visible(self, change: Change) -> bytes | None:
        """The event a selecting client sees: entering looks like ADDED, leaving like DELETED."""
        request = self._request
        namespace = change.object["metadata"].get("namespace", "")
        if request.namespace and namespace != request.namespace:
            return None
        if request.selects is None:
            return self._event(change.type, change.object)
        before = change.previous is not None and request.selects(change.previous)
        after = change.type != "DELETED" and request.selects(change.object)
        match before, after:
            case False, True:
                return self._event("ADDED", change.object)
            case True, True:
                return self._event("MODIFIED", change.object)
            case True, False:
                return self._event("DELETED", self._last_seen(change))
        return None

    @staticmethod
    def _last_seen(change: Change) -> Object:
        """The selected state of an object that left, at the version at which it left."""
        assert change.previous is not None
        meta = {**change.previous["metadata"], "resourceVersion": str(change.version)}
        return {**change.previous, "metadata": meta}

    def _event(self, kind: str, obj: Object) -> bytes:
        return (
            to_json({"type": kind, "object": self._form(served(self._request.kind, obj))}) + b"\n"
        )

    def _form(self, obj: Object) -> Object:
        form = self._request.form
        if form.name == "Table":
            headers = not self._headers_sent
            self._headers_sent = True
            meta = {"resourceVersion": obj["metadata"]["resourceVersion"]}
            return table(self._request.kind, [obj], meta, form.include, headers)
        return partial_metadata(obj) if form.name else obj

    def _bookmark(self, annotations: dict[str, str]) -> bytes:
        kind = self._request.kind
        meta: dict[str, Any] = {"resourceVersion": str(self._version), "creationTimestamp": None}
        if annotations:
            meta["annotations"] = annotations
        obj = {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": meta}
        if self._request.form.name == "Table":
            obj = {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": meta, "rows": []}
        return to_json({"type": "BOOKMARK", "object": obj}) + b"\n"
