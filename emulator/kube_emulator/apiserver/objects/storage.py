"""Objects in memory, their versions, and the fan-out of every change to the watches.

Stored objects are never changed in place: a write replaces the object, so what a list or a watch
hands out stays as it was. One counter numbers every write of every resource, as etcd does.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from kube_emulator.apiserver.kinds.catalogue import Object

HISTORY = 1000
"""Changes kept per resource for watches that resume; an older resourceVersion gets 410 Expired."""
QUEUE = 10_000
"""Changes that wait for one watcher; one that reads more slowly is cut off."""

Key = tuple[str, str]
ChangeType = Literal["ADDED", "MODIFIED", "DELETED"]


@dataclass(frozen=True)
class Change:
    """One write: the object after it (its last state for DELETED) and the object before it."""

    version: int
    type: ChangeType
    object: Object
    previous: Object | None


class TooOld(Exception):
    """The asked resourceVersion lies before the kept history; `oldest` is the first still there."""

    def __init__(self, oldest: int) -> None:
        super().__init__(f"history begins at {oldest}")
        self.oldest = oldest


class Subscription:
    """The changes of one resource from one version on, in order, as an async stream."""

    def __init__(self, past: list[Change], most: int) -> None:
        self._most = most
        self._queue: asyncio.Queue[Change | None] = asyncio.Queue()
        self.closed = False
        for change in past:
            self._queue.put_nowait(change)

    def offer(self, change: Change) -> None:
        if self._queue.qsize() >= self._most:
            self.close()
        if not self.closed:
            self._queue.put_nowait(change)

    def close(self) -> None:
        """End the stream: the watcher was too slow, or the resource is no longer served."""
        self.closed = True
        self._queue.put_nowait(None)

    async def next(self) -> Change | None:
        """The next change; None once the stream has ended."""
        return await self._queue.get()


class _Resource:
    def __init__(self, version: int) -> None:
        self.objects: dict[Key, Object] = {}
        self.history: deque[Change] = deque()
        self.forgotten = version
        self.subscriptions: set[Subscription] = set()


class Store:
    """Every object of every resource. Resources are named by `Kind.storage_key`."""

    def __init__(self, history: int = HISTORY, queue: int = QUEUE) -> None:
        self._resources: dict[str, _Resource] = {}
        self._history, self._queue = history, queue
        self._listeners: list[Callable[[str, Change], None]] = []
        self.version = 1

    def _resource(self, name: str) -> _Resource:
        found = self._resources.get(name)
        if found is None:
            found = self._resources[name] = _Resource(self.version)
        return found

    def on_change(self, listener: Callable[[str, Change], None]) -> None:
        """Call `listener(resource, change)` after every write."""
        self._listeners.append(listener)

    def get(self, resource: str, namespace: str, name: str) -> Object | None:
        return self._resource(resource).objects.get((namespace, name))

    def list(self, resource: str, namespace: str = "") -> list[Object]:
        """Objects in the order of their keys; an empty namespace means all of them."""
        objects = self._resource(resource).objects
        return [objects[k] for k in sorted(objects) if not namespace or k[0] == namespace]

    def names(self) -> Iterator[str]:
        return iter(list(self._resources))

    def put(self, resource: str, obj: Object) -> Object:
        """Store the object under its namespace and name, with the next resourceVersion."""
        meta = obj["metadata"]
        key = (meta.get("namespace", ""), meta["name"])
        held = self._resource(resource)
        self.version += 1
        stored = {**obj, "metadata": {**meta, "resourceVersion": str(self.version)}}
        previous = held.objects.get(key)
        held.objects[key] = stored
        kind: ChangeType = "MODIFIED" if previous else "ADDED"
        self._publish(resource, Change(self.version, kind, stored, previous))
        return stored

    def remove(self, resource: str, namespace: str, name: str) -> Object:
        """Take the object away; what is returned, and watched, carries the version of its end."""
        self.version += 1
        previous = self._resource(resource).objects.pop((namespace, name))
        last = {
            **previous,
            "metadata": {**previous["metadata"], "resourceVersion": str(self.version)},
        }
        self._publish(resource, Change(self.version, "DELETED", last, previous))
        return last

    def rewrite(self, resource: str, change: Callable[[Object], Object]) -> None:
        """Change how stored objects read, without a write: no new version, nothing to watch."""
        objects = self._resource(resource).objects
        for key, obj in objects.items():
            objects[key] = change(obj)

    def subscribe(self, resource: str, since: int) -> Subscription:
        """Stream the changes after version `since`. Raises TooOld if they are no longer kept."""
        held = self._resource(resource)
        if since < held.forgotten:
            raise TooOld(held.forgotten)
        subscription = Subscription([c for c in held.history if c.version > since], self._queue)
        held.subscriptions.add(subscription)
        return subscription

    def unsubscribe(self, resource: str, subscription: Subscription) -> None:
        self._resource(resource).subscriptions.discard(subscription)

    def drop(self, resource: str) -> None:
        """Forget a resource that is no longer served, and end its watches."""
        held = self._resources.pop(resource, None)
        for subscription in held.subscriptions if held else ():
            subscription.close()

    def _publish(self, resource: str, change: Change) -> None:
        held = self._resource(resource)
        held.history.append(change)
        if len(held.history) > self._history:
            held.forgotten = held.history.popleft().version
        for subscription in list(held.subscriptions):
            subscription.offer(change)
        for listener in self._listeners:
            listener(resource, change)
