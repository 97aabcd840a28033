"""A refused field, in the API server's words."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

Json = Any
Schema = dict[str, Any]

ErrorKind = Literal[
    "FieldValueRequired",
    "FieldValueInvalid",
    "FieldValueNotSupported",
    "FieldValueTooLong",
    "FieldValueTooMany",
    "FieldValueDuplicate",
    "FieldValueTypeInvalid",
    "FieldValueForbidden",
]


@dataclass(frozen=True)
class FieldError:
    """One refusal: the dotted path of the field, and what is wrong with its value."""

    path: str
    message: str
    kind: ErrorKind = "FieldValueInvalid"

    def __str__(self) -> str:
        return f"{self.path or '<nil>'}: {self.message}"


def child(path: str, key: str | int) -> str:
    """Extend a dotted field path by a property name or a list index."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    return f"{path}.{key}" if path else key


def invalid_value(value: Json, detail: str) -> str:
    """Word a refused value as the API server does; objects and lists are named, not printed."""
    shown = json.dumps(value) if not isinstance(value, dict | list) else f'"{type_name(value)}"'
    return f"Invalid value: {shown}: {detail}"


def list_key(schema: Schema, item: Json) -> tuple[Json, ...] | None:
    """Return the identity of a list item under `x-kubernetes-list-type`, None if it has none."""
    match schema.get("x-kubernetes-list-type"):
        case "map" if isinstance(item, dict):
            # A key is a scalar, but whether this one is may be what is asked.
            names = schema.get("x-kubernetes-list-map-keys", [])
            return tuple(json.dumps(item.get(name), sort_keys=True) for name in names)
        case "set":
            return (json.dumps(item, sort_keys=True),)
    return None


_TYPES = {
    type(None): "null",
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    list: "array",
}


def type_name(value: Json) -> str:
    return _TYPES.get(type(value), "object")
