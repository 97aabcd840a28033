"""Tables: what `kubectl get` prints, from printer columns."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any

import jsonpath

from kube_emulator.apiserver.kinds.catalogue import Kind, Object
from kube_emulator.apiserver.wire.columns import AGE, BUILTIN_COLUMNS, NAME, Column, age

_CUSTOM_AGE = Column("Age", "date", ".metadata.creationTimestamp")


def columns_of(kind: Kind) -> list[Column]:
    """The columns of a kind, those that are shown only wide included."""
    if kind.definition is None:
        return list(BUILTIN_COLUMNS.get(kind.plural, [NAME, AGE]))
    declared = kind.definition.get("additionalPrinterColumns")
    if not declared:
        return [NAME, _CUSTOM_AGE]
    return [NAME] + [
        Column(
            c["name"],
            c["type"],
            c["jsonPath"],
            c.get("priority", 0),
            c.get("description", ""),
            c.get("format", ""),
        )
        for c in declared
    ]


def table(
    kind: Kind, objects: list[Object], meta: Object, include: str, headers: bool = True
) -> Object:
    """A `meta.k8s.io/v1 Table`; `include` is None, Metadata or Object, what each row carries."""
    columns = columns_of(kind)
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": meta,
        "columnDefinitions": [c.header() for c in columns] if headers else None,
        "rows": [_row(kind, obj, columns, include) for obj in objects],
    }


def _row(kind: Kind, obj: Object, columns: list[Column], include: str) -> Object:
    row: Object = {"cells": [_cell(obj, c) for c in columns]}
    if include == "Object":
        row["object"] = obj
    elif include == "Metadata":
        row["object"] = partial_metadata(obj)
    return row


def partial_metadata(obj: Object) -> Object:
    return {
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": obj["metadata"],
    }


def _cell(obj: Object, column: Column) -> Any:
    if callable(column.source):
        return column.source(obj)
    found = select(column.source, obj)
    return _typed(found[0], column.type) if found else None


def _typed(value: Any, kind: str) -> Any:
    match kind:
        case "integer" | "number":
            return value if isinstance(value, int | float) else None
        case "boolean":
            return value if isinstance(value, bool) else None
        case "date":
            return age(value)
        case _:
            return _text(value)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | dict):
        return json.dumps(value, separators=(",", ":"))
    return str(value)


_ESCAPED = re.compile(r"\.((?:[^.\[\]\\()]|\\.)*\\\.(?:[^.\[\]\\()]|\\.)*)")


@lru_cache(maxsize=512)
def _compiled(path: str) -> Any:
    """Kubernetes writes `.a\\.b` for a key with a dot; RFC 9535 writes `['a.b']`."""
    plain = _ESCAPED.sub(lambda m: "['" + m[1].replace("\\.", ".") + "']", path)
    return jsonpath.compile("$" + plain if plain.startswith((".", "[")) else "$." + plain)


def select(path: str, obj: Object) -> list[Any]:
    """Every value at a Kubernetes JSONPath such as `.status.conditions[?(@.type=="A")].reason`."""
    return list(_compiled(path).findall(obj))
