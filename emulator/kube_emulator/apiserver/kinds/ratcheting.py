"""Ratcheting: an update may keep what has become invalid, as long as it does not touch it.

A definition can be tightened under stored objects; refusing every later write of them, status and
labels included, would lock them. Follows KEP-4008 field by field: a refusal is dropped if the
stored object earns the same one and the value it speaks of is unchanged.
"""

from __future__ import annotations

import re
from typing import Any

from kube_emulator.apiserver.kinds.catalogue import Object
from kube_schema.field_errors import FieldError, Schema
from kube_schema.structural import validate

_UNCHECKED = "Invalid value: null: some validation rules were not checked"
_PART = re.compile(r"([^.\[\]]+)|\[(\d+)\]")


def without_old_errors(
    schema: Schema, found: list[FieldError], new: Object, old: Object
) -> list[FieldError]:
    """The refusals that this update earns itself."""
    known = validate(schema, old)
    earned = [
        error
        for error in found
        if error not in known or _value(new, error.path) != _value(old, error.path)
    ]
    only_follows = all(error.message.startswith(_UNCHECKED) for error in earned)
    return [] if only_follows else earned


def _value(obj: Object, path: str) -> Any:
    value: Any = obj
    for key, index in _PART.findall(path):
        if isinstance(value, list) and index and int(index) < len(value):
            value = value[int(index)]
        elif isinstance(value, dict) and key:
            value = value.get(key)
        else:
            return None
    return value
