"""Sets of field paths: who manages which field, in the FieldsV1 notation.

A path is a tuple of FieldsV1 elements: `f:<name>` a field, `k:<keys>` an item of a list of type
map, `v:<value>` an item of a set. Follows structured-merge-diff: maps are granular and lists atomic
unless the schema says otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

Json = Any
Schema = dict[str, Any]
Path = tuple[str, ...]
FieldSet = frozenset[Path]

MEMBER = object()
"""Stands for the value of a container whose own existence is managed (a map key, a list item)."""


def _encode(value: Json) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=False)


def list_type(schema: Schema) -> str:
    return str(schema.get("x-kubernetes-list-type", "atomic"))


def item_element(schema: Schema, item: Json) -> str:
    """The path element of an item of a list of type map or set."""
    if list_type(schema) == "set":
        return "v:" + _encode(item)
    properties = schema.get("items", {}).get("properties", {})
    keys = {
        key: item.get(key, properties.get(key, {}).get("default"))
        for key in schema.get("x-kubernetes-list-map-keys", [])
    }
    return "k:" + _encode({k: v for k, v in keys.items() if v is not None})


def property_schema(schema: Schema, key: str) -> Schema | None:
    """The schema of a declared property; None for a free key of a map."""
    found: Schema | None = schema.get("properties", {}).get(key)
    return found


def element_schema(schema: Schema, key: str) -> Schema:
    declared = property_schema(schema, key)
    if declared is not None:
        return declared
    additional = schema.get("additionalProperties")
    return additional if isinstance(additional, dict) else {}


def is_granular(schema: Schema, value: Json) -> bool:
    """Whether the parts of this value are managed one by one."""
    if isinstance(value, dict):
        return schema.get("x-kubernetes-map-type") != "atomic"
    return isinstance(value, list) and list_type(schema) in ("map", "set")


def field_values(schema: Schema, value: Json) -> dict[Path, Json]:
    """Every managed path of a value with what stands there; MEMBER for a container as such."""
    found: dict[Path, Json] = {}
    for path, leaf in _walk(schema, value, ()):
        found.setdefault(path, leaf)
    return found


def _walk(schema: Schema, value: Json, path: Path) -> Iterator[tuple[Path, Json]]:
    if not is_granular(schema, value):
        if path:
            yield path, value
    elif isinstance(value, dict):
        for key, sub in value.items():
            here = (*path, "f:" + key)
            yield from _walk(element_schema(schema, key), sub, here)
            if sub is None or sub == {} or property_schema(schema, key) is None:
                yield here, MEMBER
    else:
        for item in value:
            here = (*path, item_element(schema, item))
            yield here, MEMBER
            if list_type(schema) == "map":
                yield from _walk(schema.get("items", {}), item, here)


def containers(schema: Schema, value: Json, path: Path = ()) -> Iterator[Path]:
    """The paths of every granular map and list inside a value."""
    if not is_granular(schema, value):
        return
    if path:
        yield path
    if isinstance(value, dict):
        for key, sub in value.items():
            yield from containers(element_schema(schema, key), sub, (*path, "f:" + key))
    elif list_type(schema) == "map":
        for item in value:
            here = (*path, item_element(schema, item))
            yield from containers(schema.get("items", {}), item, here)


def closure(fields: FieldSet) -> FieldSet:
    """The fields with everything they lie in."""
    return frozenset(path[:i] for path in fields for i in range(1, len(path) + 1))


def to_fields_v1(fields: FieldSet) -> dict[str, Any]:
    """Write a set as a FieldsV1 tree."""
    tree: dict[str, Any] = {}
    inner = {path[:i] for path in fields for i in range(1, len(path))}
    for path in sorted(fields):
        node = tree
        for element in path:
            node = node.setdefault(element, {})
        if path in inner:
            node["."] = {}
    return tree


def from_fields_v1(tree: dict[str, Any], path: Path = ()) -> FieldSet:
    """Read a FieldsV1 tree."""
    found: set[Path] = set()
    for element, sub in tree.items():
        if element == ".":
            found.add(path)
        elif sub:
            found |= from_fields_v1(sub, (*path, element))
        else:
            found.add((*path, element))
    return frozenset(found)


def display(path: Path) -> str:
    """A path as conflict messages show it: `.spec.containers[name="a"].image`."""
    return "".join(map(_display_element, path))


def _display_element(element: str) -> str:
    match element[0]:
        case "f":
            return "." + element[2:]
        case "k":
            keys = json.loads(element[2:])
            return "[" + ",".join(f"{k}={_encode(v)}" for k, v in sorted(keys.items())) + "]"
        case _:
            return f"[={element[2:]}]"
