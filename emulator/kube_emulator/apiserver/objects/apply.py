"""Server-side apply and the bookkeeping of field managers (metadata.managedFields).

Follows structured-merge-diff's updater: an update takes over the fields it changes, an apply
conflicts over fields that others manage and it would change, and removes what its manager applied
before and no longer names, unless someone else manages it too.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

from kube_emulator.apiserver.kinds import errors
from kube_emulator.apiserver.kinds.catalogue import Kind, Object
from kube_emulator.apiserver.kinds.fields import (
    MEMBER,
    FieldSet,
    Json,
    Path,
    Schema,
    closure,
    containers,
    display,
    element_schema,
    field_values,
    from_fields_v1,
    is_granular,
    item_element,
    list_type,
    to_fields_v1,
)

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
Operation = Literal["Apply", "Update"]

_SYSTEM: FieldSet = frozenset(
    [("f:apiVersion",), ("f:kind",), ("f:metadata",)]
    + [
        ("f:metadata", "f:" + name)
        for name in (
            "name",
            "namespace",
            "creationTimestamp",
            "selfLink",
            "uid",
            "clusterName",
            "generation",
            "managedFields",
            "resourceVersion",
        )
    ]
)


@dataclass(frozen=True)
class Manager:
    """Who writes, and how; the identity of one entry of managedFields."""

    name: str
    operation: Operation
    api_version: str
    subresource: str = ""

    @classmethod
    def of(cls, entry: Object) -> Manager:
        return cls(
            entry.get("manager", ""),
            entry["operation"],
            entry.get("apiVersion", ""),
            entry.get("subresource", ""),
        )

    def same(self, other: Manager) -> bool:
        """One applier is one manager whatever version it applies; updates are kept by version."""
        mine, theirs = (self.name, self.subresource), (other.name, other.subresource)
        versions = self.operation == "Apply" or self.api_version == other.api_version
        return self.operation == other.operation and mine == theirs and versions

    def shown(self, time: str | None) -> str:
        """The manager as conflict messages name it."""
        text = f'"{self.name}"'
        if self.subresource:
            text += f' with subresource "{self.subresource}"'
        if self.operation == "Update":
            text += f" using {self.api_version}" + (f" at {time}" if time else "")
        return text


@dataclass
class _Entry:
    manager: Manager
    fields: FieldSet
    time: str | None

    def encode(self) -> Object:
        entry = {
            "manager": self.manager.name,
            "operation": self.manager.operation,
            "apiVersion": self.manager.api_version,
            "time": self.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": to_fields_v1(self.fields),
        }
        return {**entry, **({"subresource": s} if (s := self.manager.subresource) else {})}


def _decode(managed: list[Object]) -> list[_Entry]:
    return [
        _Entry(Manager.of(e), from_fields_v1(e.get("fieldsV1", {})), e.get("time")) for e in managed
    ]


def _encode(entries: list[_Entry]) -> list[Object]:
    applies = [e for e in entries if e.manager.operation == "Apply"]
    updates = [e for e in entries if e.manager.operation == "Update"]
    updates.sort(key=lambda e: (e.time or "", e.manager.name))
    applies.sort(key=lambda e: (e.time or "", e.manager.name))
    return [e.encode() for e in [*applies, *updates] if e.fields]


def _ignored(path: Path, kind: Kind, subresource: str) -> bool:
    if path in _SYSTEM or path[:2] == ("f:metadata", "f:managedFields"):
        return True
    if subresource == "status":
        return path[0] == "f:spec"
    return kind.status and path[0] == "f:status"


def _managed(schema: Schema, obj: Object, kind: Kind, subresource: str) -> FieldSet:
    values = field_values(schema, obj)
    return frozenset(p for p in values if not _ignored(p, kind, subresource))


@dataclass(frozen=True)
class _Difference:
    changed: FieldSet
    removed: FieldSet


def _compare(schema: Schema, kind: Kind, old: Object, new: Object, subresource: str) -> _Difference:
    """What a write changes, apart from what its endpoint does not write anyway.

    A container that is filled or emptied is neither added nor removed.
    """
    before, after = field_values(schema, old), field_values(schema, new)
    there = closure(frozenset(before))
    changed = {p for p, v in after.items() if p in before and _differs(before[p], v)}
    changed |= {p for p, v in after.items() if p not in (there if v is MEMBER else before)}
    removed = before.keys() - closure(frozenset(after))
    return _Difference(
        frozenset(p for p in changed if not _ignored(p, kind, subresource)),
        frozenset(p for p in removed if not _ignored(p, kind, subresource)),
    )


def _differs(old: Json, new: Json) -> bool:
    if old is MEMBER or new is MEMBER:
        return False
    return type(old) is not type(new) or bool(old != new)


def track_update(
    schema: Schema, kind: Kind, live: Object, new: Object, manager: Manager, now: str
) -> list[Object]:
    """The managedFields of `new`, written over `live` ({} on a create) by an update."""
    given = new["metadata"].get("managedFields")
    base = live.get("metadata", {}).get("managedFields", []) if given is None else given
    entries = _decode([e for e in base if e.get("operation")])
    difference = _compare(schema, kind, live, new, manager.subresource)
    for entry in entries:
        if not entry.manager.same(manager):
            entry.fields -= difference.changed | difference.removed
    own = _find(entries, manager, now)
    changed = frozenset(p for p in difference.changed if _is_optional(kind, p))
    added = frozenset(containers(schema, new)) - frozenset(containers(schema, live))
    containing = frozenset(
        p for p in added if _is_optional(kind, p) and not _ignored(p, kind, manager.subresource)
    )
    fields = (own.fields - difference.removed) | changed | containing
    if fields != own.fields:
        own.fields, own.time = fields, now
    return _encode(entries)


_STRUCTS = ("f:metadata", "f:spec", "f:status", "f:template", "f:strategy", "f:containers")


def _is_optional(kind: Kind, path: Path) -> bool:
    """Whether a new container is a field somebody added; built-ins always have their structs."""
    return path != ("f:metadata",) and (kind.definition is not None or path[-1] not in _STRUCTS)


def _find(entries: list[_Entry], manager: Manager, now: str) -> _Entry:
    for entry in entries:
        if entry.manager.same(manager):
            return entry
    entries.append(_Entry(manager, frozenset(), now))
    return entries[-1]


def apply(
    schema: Schema,
    kind: Kind,
    live: Object,
    config: Object,
    manager: Manager,
    force: bool,
    now: str,
) -> Object:
    """Merge an applied configuration into `live` ({} if there is none), with its managedFields.

    Raises StatusError 409, one cause per field, where it would change what others manage.
    """
    entries = _decode(live.get("metadata", {}).get("managedFields", []))
    own = _find(entries, manager, now)
    last = own.fields
    own.fields = _managed(schema, config, kind, manager.subresource)
    if own.fields != last:
        own.time = now
    own.manager = manager
    merged = _merge(schema, live, config)
    kept = closure(frozenset().union(*(e.fields for e in entries)))
    new: Object = _remove(schema, merged, closure(last) - kept, ())
    difference = _compare(schema, kind, live, new, manager.subresource)
    others = [e for e in entries if e is not own]
    contested = difference.changed - _client_side_applied(schema, live, manager)
    taken = [(e, path) for e in others for path in sorted(e.fields & contested)]
    if taken and not force:
        raise errors.apply_conflict(
            [(entry.manager.shown(entry.time), display(path)) for entry, path in taken]
        )
    for entry in others:
        entry.fields -= difference.changed | difference.removed
    new["metadata"] = {**new["metadata"], "managedFields": _encode(entries)}
    return new


def _client_side_applied(schema: Schema, live: Object, manager: Manager) -> FieldSet:
    """The fields kubectl applied on the client's side: its first server-side apply takes them."""
    text = live.get("metadata", {}).get("annotations", {}).get(LAST_APPLIED)
    if manager.name != "kubectl" or text is None:
        return frozenset()
    return frozenset(field_values(schema, json.loads(text)))


def _merge(schema: Schema, live: Json, config: Json) -> Json:
    if not is_granular(schema, config) or type(live) is not type(config):
        return config
    if isinstance(config, dict):
        merged = dict(live)
        for key, value in config.items():
            sub = element_schema(schema, key)
            merged[key] = _merge(sub, live[key], value) if key in live else value
        return merged
    items = {item_element(schema, item): item for item in live}
    for item in config:
        element = item_element(schema, item)
        known = items.get(element)
        items[element] = item if known is None else _merge(schema["items"], known, item)
    return list(items.values())


def _remove(schema: Schema, value: Json, gone: FieldSet, path: Path) -> Json:
    if not gone or not is_granular(schema, value):
        return value
    if isinstance(value, dict):
        return {
            key: _remove(element_schema(schema, key), sub, gone, here)
            for key, sub in value.items()
            if (here := (*path, "f:" + key)) not in gone
        }
    kept = [
        (item, here) for item in value if (here := (*path, item_element(schema, item))) not in gone
    ]
    if list_type(schema) == "set":
        return [item for item, _ in kept]
    return [_remove(schema.get("items", {}), item, gone, here) for item, here in kept]
