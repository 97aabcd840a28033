"""JSON merge patch (RFC 7396): the patch that turns one object into another. Pure."""

from __future__ import annotations

from typing import Any


def merge_patch(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Return the smallest patch from `old` to `new`; empty if they are equal.

    `new` must hold no None, which in a patch means removal.
    """
    patch: dict[str, Any] = {key: None for key in old if key not in new}
    for key, value in new.items():
        before = old.get(key)
        if isinstance(before, dict) and isinstance(value, dict):
            if inner := merge_patch(before, value):
                patch[key] = inner
        elif key not in old or not same(before, value):
            patch[key] = value
    return patch


def same(one: Any, other: Any) -> bool:
    """Tell whether two values are one to a schema too: to Python 1, 1.0 and True are equal."""
    return bool(one == other) and _are_alike(one, other)


def _are_alike(one: Any, other: Any) -> bool:
    """Tell whether two values that are equal to Python have numbers and truths of one type."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return all(_are_alike(value, other[key]) for key, value in one.items())
    return not isinstance(one, list) or all(map(_are_alike, one, other))
