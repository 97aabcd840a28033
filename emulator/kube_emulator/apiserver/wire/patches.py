"""JSON patch (RFC 6902), merge patch (RFC 7386) and Kubernetes' strategic merge patch."""

from __future__ import annotations

import copy
from typing import Any

import jsonpatch
import jsonpointer

from kube_emulator.apiserver.kinds import errors
from kube_emulator.apiserver.kinds.fields import element_schema

Json = Any
Schema = dict[str, Any]

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_MERGE_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"


def json_patch(target: Json, operations: Json) -> Json:
    """Apply a JSON patch to a copy. Raises StatusError 400 (malformed) or 422 (does not apply).

    As on the real server, `replace` of a member that is not there adds it.
    """
    if not isinstance(operations, list):
        raise errors.bad_request("error decoding patch: a JSON patch is a list of operations")
    try:
        for operation in operations:
            lenient = {**operation, "op": "add"} if _sets_member(target, operation) else operation
            target = jsonpatch.JsonPatch([lenient]).apply(target)
    except (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException, TypeError) as error:
        message = "the server rejected our request due to an error in our request"
        raise errors.StatusError(422, "Invalid", message, details={}) from error
    return target


def _sets_member(target: Json, operation: Json) -> bool:
    if operation.get("op") != "replace":
        return False
    parent, _, _ = str(operation.get("path", "")).rpartition("/")
    return isinstance(jsonpointer.resolve_pointer(target, parent, None), dict)


def merge_patch(target: Json, patch: Json) -> Json:
    """Apply a merge patch to a copy."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged


def strategic_merge_patch(schema: Schema, target: Json, patch: Json) -> Json:
    """Apply a strategic merge patch to a copy; the schema names the merge keys of lists.

    Knows the directives `$patch: replace | delete | merge`, `$retainKeys`,
    `$deleteFromPrimitiveList/<field>` and `$setElementOrder/<field>`.
    """
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    match patch.get("$patch"):
        case "delete":
            return {}
        case "replace":
            return _plain(patch)
    merged = dict(target) if isinstance(target, dict) else {}
    if "$retainKeys" in patch:
        merged = {k: v for k, v in merged.items() if k in patch["$retainKeys"]}
    for key, value in patch.items():
        if key.startswith("$deleteFromPrimitiveList/"):
            field = key.partition("/")[2]
            merged[field] = [item for item in merged.get(field, []) if item not in value]
    for key, value in patch.items():
        if key.startswith("$"):
            continue
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, list):
            merged[key] = _merge_list(element_schema(schema, key), merged.get(key), value)
        else:
            sub = element_schema(schema, key)
            merged[key] = strategic_merge_patch(sub, merged.get(key), value)
    for key, order in patch.items():
        if key.startswith("$setElementOrder/"):
            field = key.partition("/")[2]
            sub = element_schema(schema, field)
            merged[field] = _in_order(sub, merged.get(field) or [], order)
    return merged


def _plain(patch: Json) -> Json:
    return {k: copy.deepcopy(v) for k, v in patch.items() if not k.startswith("$")}


def _merge_list(schema: Schema, target: Json, patch: list[Json]) -> list[Json]:
    if "merge" not in schema.get("x-kubernetes-patch-strategy", "").split(","):
        return copy.deepcopy(patch)
    items = list(target or [])
    key = schema.get("x-kubernetes-patch-merge-key")
    if key is None:
        return items + [item for item in patch if item not in items]
    if {"$patch": "replace"} in patch:
        return [copy.deepcopy(item) for item in patch if item != {"$patch": "replace"}]
    for change in patch:
        if key not in change:
            message = f"map: {change} does not contain declared merge key: {key}"
            raise errors.StatusError(422, "Invalid", message)
        place = next((i for i, item in enumerate(items) if item.get(key) == change[key]), None)
        if change.get("$patch") == "delete":
            items = [item for item in items if item.get(key) != change[key]]
        elif place is None:
            items.append(_plain(change))
        else:
            items[place] = strategic_merge_patch(schema.get("items", {}), items[place], change)
    return items


def _in_order(schema: Schema, items: list[Json], order: list[Json]) -> list[Json]:
    key = schema.get("x-kubernetes-patch-merge-key")
    wanted = [entry.get(key) if key else entry for entry in order]

    def place(item: Json) -> int:
        value = item.get(key) if key else item
        return wanted.index(value) if value in wanted else len(wanted)

    return sorted(items, key=place)
