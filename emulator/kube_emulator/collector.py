"""The garbage collector: objects whose owners are all gone are deleted.

A plain client of any API server, `python -m kube_emulator.collector --kubeconfig FILE`. It follows
the cluster's own collector: owners are known by uid; background deletion removes dependents after
their owner; an owner with the finalizer `foregroundDeletion` goes after the dependents that block
it; one with `orphan` goes after its dependents have lost the reference to it.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass

from kube_emulator.client import ApiError, Client, Informer, Object, Resource
from kube_emulator.component import run_client

log = logging.getLogger(__name__)

DISCOVERY_SECONDS = 10.0
RETRY_SECONDS = 0.5
_FOREGROUND, _ORPHAN = "foregroundDeletion", "orphan"
_NEEDED = {"list", "watch", "delete", "patch"}
_IGNORED = {"events"}
_DEFINITION = "CustomResourceDefinition"


@dataclass
class _Watched:
    """One resource's live copy, and the task that keeps it so."""

    resource: Resource
    namespaced: bool
    informer: Informer
    task: asyncio.Task[None]


Item = tuple[Resource, Object]


class Graph:
    """Every object by uid, who depends on whom, and which objects need attention."""

    def __init__(self) -> None:
        self.items: dict[str, Item] = {}
        self.dependents: dict[str, dict[str, Item]] = {}
        self.dirty: set[str] = set()

    def change(self, resource: Resource, old: Object | None, new: Object | None) -> None:
        """Follow one change; mark what it may set free or condemn."""
        if old is not None and (new is None or new["metadata"]["uid"] != old["metadata"]["uid"]):
            self._forget(old)
            old = None
        if new is None:
            return
        uid = new["metadata"]["uid"]
        if old is not None:
            self._unlink(old)
        self.items[uid] = (resource, new)
        for reference in _owners(new):
            self.dependents.setdefault(reference["uid"], {})[uid] = (resource, new)
        self.dirty.add(uid)
        if "deletionTimestamp" in new["metadata"]:
            self.dirty |= self.dependents.get(uid, {}).keys()

    def _forget(self, obj: Object) -> None:
        uid = obj["metadata"]["uid"]
        self._unlink(obj)
        self.items.pop(uid, None)
        self.dirty.discard(uid)
        self.dirty |= self.dependents.get(uid, {}).keys()

    def _unlink(self, obj: Object) -> None:
        uid = obj["metadata"]["uid"]
        for reference in _owners(obj):
            siblings = self.dependents.get(reference["uid"], {})
            siblings.pop(uid, None)
            if not siblings:
                self.dependents.pop(reference["uid"], None)
            if reference["uid"] in self.items:
                self.dirty.add(reference["uid"])


class Collector:
    """Watches every deletable resource that discovery shows, and deletes what is left behind."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._watched: dict[tuple[str, str], _Watched] = {}
        self._graph = Graph()
        self._changed = asyncio.Event()
        self._definitions_changed = asyncio.Event()

    async def run(self) -> None:
        """Collect until cancelled."""
        discovering = asyncio.create_task(self._discover_forever())
        try:
            while True:
                await self._changed.wait()
                self._changed.clear()
                if left := await self._collect():
                    await asyncio.sleep(RETRY_SECONDS)
                    self._graph.dirty |= left
                    self._changed.set()
        finally:
            tasks = [discovering, *(w.task for w in self._watched.values())]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _discover_forever(self) -> None:
        while True:
            self._definitions_changed.clear()
            try:
                await self._discover()
            except ApiError as error:
                log.info("discovery: %s; trying again", error)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._definitions_changed.wait(), DISCOVERY_SECONDS)
                # A definition is served a moment after it says so.
                await asyncio.sleep(RETRY_SECONDS)

    async def _discover(self) -> None:
        found: dict[tuple[str, str], tuple[Resource, bool]] = {}
        groups = (await self._client.get("/apis"))["groups"]
        preferred = ["apis/" + g["preferredVersion"]["groupVersion"] for g in groups]
        for api in ["api/v1", *preferred]:
            for entry in (await self._client.get(f"/{api}"))["resources"]:
                usable = set(entry["verbs"]) >= _NEEDED and "/" not in entry["name"]
                if usable and entry["name"] not in _IGNORED:
                    version = api.partition("/")[2]
                    resource = Resource(api, entry["name"])
                    found[version, entry["kind"]] = (resource, entry["namespaced"])
        for key in self._watched.keys() - found.keys():
            self._stop(self._watched.pop(key))
        for key in found.keys() - self._watched.keys():
            self._watched[key] = self._follow(key[1], *found[key])

    def _follow(self, kind: str, resource: Resource, namespaced: bool) -> _Watched:
        def changed(old: Object | None, new: Object | None) -> None:
            self._graph.change(resource, old, new)
            self._changed.set()
            if kind == _DEFINITION:
                self._definitions_changed.set()

        informer = Informer(self._client, resource.path(), changed)
        return _Watched(resource, namespaced, informer, asyncio.create_task(informer.run()))

    def _stop(self, watched: _Watched) -> None:
        watched.task.cancel()
        for obj in watched.informer.items.values():
            self._graph.change(watched.resource, obj, None)
        self._changed.set()

    async def _collect(self) -> set[str]:
        """Attend to every marked object; the uids of those to try again are returned."""
        again: set[str] = set()
        while self._graph.dirty:
            uid = self._graph.dirty.pop()
            item = self._graph.items.get(uid)
            if item is None:
                continue
            try:
                if not await self._attend(*item):
                    again.add(uid)
            except ApiError as error:
                log.info("%s %s: %s", item[0].plural, item[1]["metadata"]["name"], error)
                again.add(uid)
        return again

    async def _attend(self, resource: Resource, obj: Object) -> bool:
        meta = obj["metadata"]
        if "deletionTimestamp" in meta:
            if _ORPHAN in meta.get("finalizers", []):
                await self._orphan(resource, obj)
            elif _FOREGROUND in meta.get("finalizers", []):
                await self._finish_foreground(resource, obj)
            return True
        namespace = meta.get("namespace", "")
        states = {await self._owner(reference, namespace) for reference in _owners(obj)}
        if "unknown" in states:
            self._definitions_changed.set()
            return False
        if states and "there" not in states:
            # What blocks its owner in turn waits for its own dependents.
            foreground = "waiting" in states and meta["uid"] in self._graph.dependents
            policy = "Foreground" if foreground else "Background"
            path = resource.path(meta.get("namespace"), meta["name"])
            await self._client.delete(path, uid=meta["uid"], propagation=policy)
        return True

    async def _owner(self, reference: Object, namespace: str) -> str:
        """The state of an owner: there, waiting (for its dependents), gone, or unknown."""
        if known := self._graph.items.get(reference["uid"]):
            return _state(known[1])
        watched = self._watched.get((reference["apiVersion"], reference["kind"]))
        if watched is None:
            return "unknown"
        # The copy may lag behind: only the server can say that an owner is gone.
        home = namespace if watched.namespaced else None
        try:
            live = await self._client.get(watched.resource.path(home, reference["name"]))
        except ApiError as error:
            if error.status == 404:
                return "gone"
            raise
        return _state(live) if live["metadata"]["uid"] == reference["uid"] else "gone"

    async def _finish_foreground(self, resource: Resource, owner: Object) -> None:
        """Let an owner go once no dependent is left that blocks it."""
        uid = owner["metadata"]["uid"]
        dependents = self._graph.dependents.get(uid, {}).values()
        if not any(_blocks(obj, uid) for _, obj in dependents):
            await self._drop_finalizer(resource, owner, _FOREGROUND)

    async def _orphan(self, resource: Resource, owner: Object) -> None:
        """Take the owner out of its dependents' references, then let it go."""
        uid = owner["metadata"]["uid"]
        for dependent, obj in list(self._graph.dependents.get(uid, {}).values()):
            references = [r for r in _owners(obj) if r["uid"] != uid]
            await self._patch(dependent, obj, {"ownerReferences": references or None})
        await self._drop_finalizer(resource, owner, _ORPHAN)

    async def _drop_finalizer(self, resource: Resource, obj: Object, name: str) -> None:
        left = [f for f in obj["metadata"]["finalizers"] if f != name]
        await self._patch(resource, obj, {"finalizers": left or None})

    async def _patch(self, resource: Resource, obj: Object, meta: Object) -> None:
        known = obj["metadata"]
        body = {**meta, "uid": known["uid"], "resourceVersion": known["resourceVersion"]}
        path = resource.path(known.get("namespace"), known["name"])
        await self._client.patch(path, {"metadata": body})


def _owners(obj: Object) -> list[Object]:
    return list(obj["metadata"].get("ownerReferences", []))


def _state(owner: Object) -> str:
    meta = owner["metadata"]
    waiting = "deletionTimestamp" in meta and _FOREGROUND in meta.get("finalizers", [])
    return "waiting" if waiting else "there"


def _blocks(obj: Object, uid: str) -> bool:
    """Whether an object holds up the deletion of this owner."""
    return any(r.get("blockOwnerDeletion") and r["uid"] == uid for r in _owners(obj))


if __name__ == "__main__":
    run_client(__doc__, lambda client: Collector(client).run())
