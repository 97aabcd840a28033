"""The objects of a cluster, and what each of those who watch them has not been told of yet."""

from __future__ import annotations

import marshal
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from finetune_api.job import KIND
from finetune_operator.job.names import MANAGED_BY, MANAGER

Json = Any
Events = dict[str, list[tuple[str, Json]]]
NAMESPACE = "team"
RFC3339 = "%Y-%m-%dT%H:%M:%SZ"


@dataclass
class Watch:
    """The events of one watcher by kind: those on their way, and those that came."""

    pending: Events = field(default_factory=lambda: defaultdict(list))
    told: Events = field(default_factory=lambda: defaultdict(list))

    def deliveries(self, kind: str, count: int) -> Iterator[tuple[str, Json]]:
        """Take the oldest events of a kind off its queue."""
        for _ in range(min(count, len(self.pending[kind]))):
            event, body = self.pending[kind].pop(0)
            self.told[kind].append((event, body))
            yield event, copied(body)


@dataclass
class Store:
    """A state is never changed once it stands: who changes one puts another in its place."""

    now: datetime = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
    objects: dict[tuple[str, str], Json] = field(default_factory=dict)
    watches: list[Watch] = field(default_factory=lambda: [Watch()])
    writes: int = 0
    version: int = 0
    serial: int = 0

    @property
    def pending(self) -> Events:
        """Return what the only watcher has not been told of."""
        (watch,) = self.watches
        return watch.pending

    def deliveries(self, kind: str, count: int) -> Iterator[tuple[str, Json]]:
        """Take the oldest events of a kind off the queue of the only watcher."""
        (watch,) = self.watches
        return watch.deliveries(kind, count)

    def stamp(self) -> str:
        return self.now.strftime(RFC3339)

    def store(self, body: Json) -> Json:
        """Put a new state in place and tell the watchers. They watch by label: what loses it looks
        deleted to them."""
        key = (body["kind"], body["metadata"]["name"])
        before = key in self.objects and is_watched(self.objects[key])
        event = "MODIFIED" if before else "ADDED"
        self.version += 1
        body["metadata"]["resourceVersion"] = str(self.version)
        self.objects[key] = body
        if is_watched(body):
            self._tell(event, body)
        elif before:
            self._tell("DELETED", body)
        return copied(body)

    def add(self, body: Json) -> Json:
        self.serial += 1
        body = copied(body)
        if body["kind"] == "Pod":
            body.setdefault("status", {"phase": "Pending"})
        body["metadata"]["uid"] = f"uid-{self.serial}"
        body["metadata"].setdefault("namespace", NAMESPACE)
        return self.store(body)

    def drop(self, kind: str, name: str) -> None:
        body = self.objects.pop((kind, name))
        self.version += 1
        metadata = {**body["metadata"], "resourceVersion": str(self.version)}
        if is_watched(body):
            self._tell("DELETED", {**body, "metadata": metadata})

    def _tell(self, event: str, body: Json) -> None:
        for watch in self.watches:
            watch.pending[body["kind"]].append((event, body))

    def all(self, kind: str) -> list[Json]:
        return [b for (k, _), b in sorted(self.objects.items()) if k == kind]

    def find(self, kind: str, name: str) -> Json | None:
        return self.objects.get((kind, name))

    def job(self, name: str = "bot") -> Json:
        return self.objects[KIND, name]


def is_watched(body: Json) -> bool:
    """Tell whether the operator's watches show an object."""
    labels = body["metadata"].get("labels") or {}
    return body["kind"] == KIND or labels.get(MANAGED_BY) == MANAGER


def copied(body: Json) -> Json:
    """Return a copy of what JSON can say, which is all that a server stores."""
    return marshal.loads(marshal.dumps(body))
