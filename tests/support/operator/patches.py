"""The difference between two YAML values, as short as a person would write it.

A mapping is patched key by key, and null takes a key away. A list whose items are told apart by
kind and name, type, name or number is patched as a mapping from that; any other list is replaced.
"""

from typing import Any

Json = Any
KEYS = ("type", "name", "number")


def identity(item: Json) -> Json:
    """Return what tells an item of a list from the others; None if nothing does."""
    if not isinstance(item, dict):
        return None
    if "kind" in item:
        return f"{item['kind']}/{item.get('metadata', item)['name']}"
    return next((item[key] for key in KEYS if key in item), None)


def keyed(items: list[Json]) -> dict[Any, Json] | None:
    """Return a list's items by what tells them apart; None if nothing does."""
    found = {identity(item): item for item in items}
    return None if None in found or len(found) < len(items) else found


def merge(value: Json, patch: Json) -> Json:
    """Return `value` with the changes of `patch`."""
    if not isinstance(patch, dict):
        return patch
    if isinstance(value, list):
        items = keyed(value)
        assert items is not None, f"{value} has items that nothing tells apart"
        return list(merge(items, patch).values())
    old = value if isinstance(value, dict) else {}
    kept = {key: item for key, item in old.items() if patch.get(key, ...) is not None}
    new = {k: merge(old.get(k), change) for k, change in patch.items() if change is not None}
    return {**kept, **new}


def diff(old: Json, new: Json) -> Json:
    """Return the patch that makes `new` of `old`; {} if at most the order of items differs."""
    if old == new:
        return {}
    if isinstance(old, list) and isinstance(new, list):
        before, after = keyed(old), keyed(new)
        if before is None or after is None:
            return new
        return diff(before, after)
    if isinstance(old, dict) and isinstance(new, dict):
        gone = dict.fromkeys(key for key in old if key not in new)
        changed = {
            key: diff(old[key], item) if key in old else item
            for key, item in new.items()
            if key not in old or old[key] != item
        }
        return gone | changed
    return new
