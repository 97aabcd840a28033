"""Which CustomResourceDefinitions are accepted: names, structural schemas, and CEL rules.

Follows apiextensions.k8s.io/v1. Checked is what a schema written for a server may get wrong; not
checked are what CEL expressions name, give and cost, conversion webhooks, and updates that drop
versions.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from typing import Any

from kube_emulator.apiserver.kinds.catalogue import Object
from kube_schema.cel_rules import compile_rule, reads_old_self
from kube_schema.field_errors import FieldError, Schema
from kube_schema.structural import prune, validate

_TYPES = ("array", "boolean", "integer", "number", "object", "string")
_FORBIDDEN = ("$ref", "definitions", "dependencies", "id", "patternProperties", "additionalItems")
_REASONS = (
    "FieldValueDuplicate",
    "FieldValueForbidden",
    "FieldValueInvalid",
    "FieldValueRequired",
)


def default_definition(obj: Object) -> None:
    """Fill in, in place, the names that follow from the kind."""
    names = obj.get("spec", {}).get("names", {})
    if kind := names.get("kind"):
        names.setdefault("singular", kind.lower())
        names.setdefault("listKind", f"{kind}List")
    obj.get("spec", {}).setdefault("conversion", {"strategy": "None"})


def validate_definition(obj: Object) -> list[FieldError]:
    """Check a definition whose shape is already right."""
    spec, names = obj["spec"], obj["spec"].get("names", {})
    found = []
    if obj["metadata"].get("name") != f"{names.get('plural')}.{spec.get('group')}":
        found.append(
            _invalid(
                "metadata.name",
                obj["metadata"].get("name"),
                'must be spec.names.plural+"."+spec.group',
            )
        )
    if spec.get("scope") not in ("Cluster", "Namespaced"):
        found.append(_unsupported("spec.scope", spec.get("scope"), ("Cluster", "Namespaced")))
    required = [("spec.group", spec.get("group"))]
    required += [
        (f"spec.names.{n}", names.get(n)) for n in ("plural", "singular", "kind", "listKind")
    ]
    found += [_required(path) for path, value in required if not value]
    versions = spec.get("versions", [])
    if sum(bool(v.get("storage")) for v in versions) != 1:
        text = "must have exactly one version marked as storage version"
        found.append(_invalid("spec.versions", versions, text))
    shared = all(v.get("schema") == versions[0].get("schema") for v in versions)
    for i, version in enumerate(versions[:1] if shared else versions):
        path = "spec.validation" if shared else f"spec.versions[{i}].schema"
        root = version.get("schema", {}).get("openAPIV3Schema")
        if root is None:
            text = "Required value: schemas are required"
            found.append(FieldError(f"{path}.openAPIV3Schema", text, "FieldValueRequired"))
        elif root:
            found += _check(root, f"{path}.openAPIV3Schema")
    return found


def _required(path: str, text: str = "Required value") -> FieldError:
    return FieldError(path, text, "FieldValueRequired")


def _invalid(path: str, value: Any, why: str) -> FieldError:
    return FieldError(path, f"Invalid value: {json.dumps(value)}: {why}")


def _forbidden(path: str, why: str) -> FieldError:
    return FieldError(path, f"Forbidden: {why}", "FieldValueForbidden")


def _unsupported(path: str, value: Any, known: tuple[str, ...]) -> FieldError:
    listed = ", ".join(json.dumps(k) for k in known)
    text = f"Unsupported value: {json.dumps(value)}: supported values: {listed}"
    return FieldError(path, text, "FieldValueNotSupported")


def _check(root: Schema, path: str) -> Iterator[FieldError]:
    """Check one version's schema."""
    yield from _walk(root, path, "at the root", True)
    if root.get("type") not in (None, "object"):
        yield _invalid(f"{path}.type", root["type"], "must be object at the root")


def _walk(schema: Schema, path: str, place: str, correlated: bool) -> Iterator[FieldError]:
    """`correlated` tells whether a value here has a known counterpart in the stored object."""
    yield from _own(schema, path, place)
    for i, rule in enumerate(schema.get("x-kubernetes-validations", [])):
        where = f"{path}.x-kubernetes-validations[{i}]"
        yield from _rule(schema, rule, where)
        if not correlated and reads_old_self(rule):
            text = "oldSelf cannot be used on the uncorrelatable portion of the schema"
            yield _invalid(f"{where}.rule", rule["rule"], text)
    for name, sub in schema.get("properties", {}).items():
        yield from _walk(sub, f"{path}.properties[{name}]", "specified object fields", correlated)
    if isinstance(sub := schema.get("additionalProperties"), dict):
        here = f"{path}.additionalProperties"
        yield from _walk(sub, here, "specified object fields", correlated)
    if isinstance(sub := schema.get("items"), dict):
        keyed = correlated and schema.get("x-kubernetes-list-type") == "map"
        yield from _walk(sub, f"{path}.items", "specified array items", keyed)


def _own(schema: Schema, path: str, place: str) -> Iterator[FieldError]:
    kind = schema.get("type")
    free = "x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields"
    if kind is None and not any(schema.get(key) for key in free):
        text = f"Required value: must not be empty for {place}"
        yield _required(f"{path}.type", text)
    elif kind is not None and kind not in _TYPES:
        yield _unsupported(f"{path}.type", kind, _TYPES)
    for key in _FORBIDDEN:
        if key in schema:
            yield _forbidden(f"{path}.{key}", f"{key} is not supported")
    if schema.get("uniqueItems"):
        why = "cannot be set to true since the runtime complexity becomes quadratic"
        yield _forbidden(f"{path}.uniqueItems", f"uniqueItems {why}")
    if "properties" in schema and isinstance(schema.get("additionalProperties"), dict):
        why = "additionalProperties and properties are mutual exclusive"
        yield _forbidden(f"{path}.additionalProperties", why)
    yield from _pattern(schema, path)
    yield from _default(schema, path)
    yield from _list_keys(schema, path)


def _rule(schema: Schema, rule: dict[str, Any], path: str) -> Iterator[FieldError]:
    if not rule.get("rule", "").strip():
        yield _required(f"{path}.rule", "Required value: rule is not specified")
        return
    if "message" in rule and not rule["message"].strip():
        yield _invalid(f"{path}.message", rule["message"], "must be non-empty if specified")
    if rule.get("reason", "FieldValueInvalid") not in _REASONS:
        yield _unsupported(f"{path}.reason", rule["reason"], _REASONS)
    if "fieldPath" in rule and not _reachable(schema, rule["fieldPath"]):
        yield _invalid(f"{path}.fieldPath", rule["fieldPath"], "must be a valid path")
    for key in ("rule", "messageExpression"):
        try:
            compile_rule(rule.get(key, "true"))
        except ValueError as error:
            yield _invalid(f"{path}.{key}", rule[key], f"compilation failed: {error}")


def _reachable(schema: Schema, path: str) -> bool:
    here: Any = schema
    for name in re.findall(r"\.([\w-]+)|\['([^']+)'\]", path):
        properties = here.get("properties", {})
        here = properties.get(name[0] or name[1], here.get("additionalProperties"))
        if not isinstance(here, dict):
            return False
    return bool(path)


def _pattern(schema: Schema, path: str) -> Iterator[FieldError]:
    try:
        re.compile(schema.get("pattern", ""))
    except re.error as error:
        why = f"must be a valid regular expression, but isn't: {error}"
        yield _invalid(f"{path}.pattern", schema["pattern"], why)


def _default(schema: Schema, path: str) -> Iterator[FieldError]:
    if "default" not in schema:
        return
    value = copy.deepcopy(schema["default"])
    if prune(schema, value, "default"):
        yield _invalid(f"{path}.default", schema["default"], "must not have unknown fields")
    bare = {k: v for k, v in schema.items() if k != "x-kubernetes-validations"}
    for error in validate(bare, value):
        if error.message.startswith("Invalid value: null: some validation rules"):
            continue
        yield FieldError(f"{path}.default", error.message, error.kind)


def _list_keys(schema: Schema, path: str) -> Iterator[FieldError]:
    items = schema.get("items", {})
    kind = schema.get("x-kubernetes-list-type")
    where = f"{path}.x-kubernetes-list-map-keys"
    keys = schema.get("x-kubernetes-list-map-keys", [])
    if kind == "map" and not keys:
        text = "Required value: must not be empty if x-kubernetes-list-type is map"
        yield _required(where, text)
    properties = items.get("properties", {}) if isinstance(items, dict) else {}
    if any(key not in properties for key in keys):
        yield _invalid(where, keys, "entries must all be names of item properties")
    for key in keys:
        optional = key in properties and key not in items.get("required", [])
        if optional and "default" not in properties[key]:
            text = "Required value: this property is in x-kubernetes-list-map-keys, so it must "
            text += "have a default or be a required property"
            yield _required(f"{path}.items.properties[{key}].default", text)
    if kind == "set" and items.get("type") in ("object", "array"):
        atomic = items.get("x-kubernetes-map-type") or items.get("x-kubernetes-list-type")
        if atomic != "atomic":
            text = "must be atomic as item of a list with x-kubernetes-list-type=set"
            yield _invalid(f"{path}.items.x-kubernetes-map-type", None, text)
