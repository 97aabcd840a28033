"""Prune, default and validate an object against a structural schema, as an API server does.

Follows apiextensions.k8s.io/v1 (structural schemas, defaulting, pruning) and words errors as the
API server words them, so that a refusal reads the same with and without a server. Rules in CEL are
evaluated by `kube_schema.cel_rules`. Not covered, because no schema here uses it: `oneOf` and
`not`, `multipleOf`, formats, and escaped property names in CEL.
"""

from __future__ import annotations

import json
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend

from kube_schema.cel_rules import check_rules
from kube_schema.field_errors import (
    FieldError,
    Json,
    Schema,
    child,
    invalid_value,
    type_name,
)
from kube_schema.shape import duplicates, fits, is_type, matches

_ROOT_FIELDS = ("apiVersion", "kind", "metadata")
_BLOCKING: frozenset[str] = frozenset(
    {
        "FieldValueRequired",
        "FieldValueNotSupported",
        "FieldValueTooLong",
        "FieldValueTooMany",
        "FieldValueTypeInvalid",
    }
)


def prune(schema: Schema, value: Json, path: str = "") -> list[str]:
    """Drop, in place, every field that the schema does not know; return the paths dropped.

    At the root `apiVersion`, `kind` and `metadata` stay whatever the schema says.
    """
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return []
    if isinstance(value, list):
        items = schema.get("items", {})
        return [p for i, item in enumerate(value) for p in prune(items, item, child(path, i))]
    if not isinstance(value, dict):
        return []
    properties: dict[str, Schema] = schema.get("properties", {})
    additional = schema.get("additionalProperties")
    dropped: list[str] = []
    for key in list(value):
        if path == "" and key in _ROOT_FIELDS:
            continue
        where = child(path, key)
        if key in properties:
            dropped += prune(properties[key], value[key], where)
        elif isinstance(additional, dict):
            dropped += prune(additional, value[key], where)
        elif additional is not True:
            del value[key]
            dropped.append(where)
    return dropped


def knows(schema: Schema, value: Json, root: bool = True) -> bool:
    """Tell whether `prune` would drop nothing."""
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return True
    if isinstance(value, list):
        items = schema.get("items", {})
        return all(knows(items, item, False) for item in value)
    if not isinstance(value, dict):
        return True
    properties: dict[str, Schema] = schema.get("properties", {})
    additional = schema.get("additionalProperties")
    for key, item in value.items():
        sub: Any = properties.get(key, additional)
        if (root and key in _ROOT_FIELDS) or sub is True:
            continue
        if not isinstance(sub, dict):
            return False
        if isinstance(item, dict | list) and not knows(sub, item, False):
            return False
    return True


def apply_defaults(schema: Schema, value: Json) -> None:
    """Fill in, in place, the schema's defaults; a null that is not allowed counts as absent."""
    if isinstance(value, list):
        for item in value:
            apply_defaults(schema.get("items", {}), item)
        return
    if not isinstance(value, dict):
        return
    properties: dict[str, Schema] = schema.get("properties", {})
    for key, sub in properties.items():
        if value.get(key) is None and not sub.get("nullable"):
            value.pop(key, None)
            if "default" in sub:
                value[key] = copied(sub["default"])
        if isinstance(value.get(key), dict | list):
            apply_defaults(sub, value[key])
    additional = schema.get("additionalProperties")
    if isinstance(additional, dict):
        for key in value.keys() - properties.keys():
            apply_defaults(additional, value[key])


def copied(value: Json) -> Json:
    """Return a copy of a value of JSON, of which `copy.deepcopy` knows less and takes longer."""
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    return [copied(item) for item in value] if isinstance(value, list) else value


def validate(schema: Schema, value: Json, old: Json | None = None) -> list[FieldError]:
    """Return every refusal of `value`, schema first, then CEL rules.

    `old` is the stored object on an update; rules that read `oldSelf` run only where a value has an
    old counterpart. As on a server, CEL is not run on values whose shape is already refused.
    """
    errors: list[FieldError] = []
    if not fits(schema, value):
        errors = [e for raw in _Structural(schema).iter_errors(value) for e in _translate(raw)]
        errors.sort(key=lambda e: e.path)
    if any(e.kind in _BLOCKING for e in errors):
        return [
            *errors,
            FieldError(
                "",
                "Invalid value: null: some validation rules were not checked because the object "
                "was invalid; correct the existing errors to complete validation",
            ),
        ]
    return errors + check_rules(schema, value, old)


def _check_type(validator: Any, kind: str, value: Json, schema: Schema) -> Any:
    if not (value is None and schema.get("nullable")) and not is_type(kind, value):
        yield ValidationError(f"must be of type {kind}")


def _check_enum(validator: Any, allowed: list[Json], value: Json, schema: Schema) -> Any:
    if not (value is None and schema.get("nullable")) and value not in allowed:
        yield ValidationError("not supported")


def _check_pattern(validator: Any, pattern: str, value: Json, schema: Schema) -> Any:
    if not matches(pattern, value, schema):
        yield ValidationError("does not match")


def _check_items(validator: Any, kind: str, value: Json, schema: Schema) -> Any:
    """Tell of each item of a set, or of a list with keys, that stands before it already."""
    for i in duplicates(value, schema):
        key = _shown_key(schema, value[i])
        yield ValidationError(f"Duplicate value: {key}", path=[i])


_Structural: Any = extend(  # type: ignore[no-untyped-call]
    Draft202012Validator,
    {
        "type": _check_type,
        "enum": _check_enum,
        "pattern": _check_pattern,
        "x-kubernetes-list-type": _check_items,
    },
)


def _translate(raw: ValidationError) -> list[FieldError]:
    path = ""
    for part in raw.absolute_path:
        path = child(path, part)
    value: Any = raw.instance
    limit: Any = raw.validator_value
    match raw.validator:
        case "required":
            return [
                FieldError(child(path, name), "Required value", "FieldValueRequired")
                for name in limit
                if name not in value and raw.message.startswith(repr(name))
            ]
        case "type" | "anyOf":
            kind = limit if raw.validator == "type" else "integer or string"
            text = f"{path} in body must be of type {kind}: {json.dumps(type_name(value))}"
            message = invalid_value(type_name(value), text)
            return [FieldError(path, message, "FieldValueTypeInvalid")]
        case "x-kubernetes-list-type":
            return [FieldError(path, raw.message, "FieldValueDuplicate")]
        case "enum":
            allowed = ", ".join(json.dumps(a) for a in limit)
            message = f"Unsupported value: {json.dumps(value)}: supported values: {allowed}"
            return [FieldError(path, message, "FieldValueNotSupported")]
        case "maxLength":
            message = f"Too long: may not be more than {limit} bytes"
            return [FieldError(path, message, "FieldValueTooLong")]
        case "maxItems" | "maxProperties":
            message = f"Too many: {len(value)}: must have at most {limit} items"
            return [FieldError(path, message, "FieldValueTooMany")]
        case _:
            detail = f"{path} in body {_LIMITS[str(raw.validator)].format(limit)}"
            shown = len(value) if raw.validator in ("minItems", "minProperties") else value
            return [FieldError(path, invalid_value(shown, detail))]


_LIMITS = {
    "minimum": "should be greater than or equal to {}",
    "maximum": "should be less than or equal to {}",
    "exclusiveMinimum": "should be greater than {}",
    "exclusiveMaximum": "should be less than {}",
    "minLength": "should be at least {} chars long",
    "minItems": "should have at least {} items",
    "minProperties": "should have at least {} properties",
    "pattern": "should match '{}'",
}


def _shown_key(schema: Schema, item: Json) -> str:
    keys = schema.get("x-kubernetes-list-map-keys")
    shown = {k: item[k] for k in keys if k in item} if keys else item
    return json.dumps(shown, separators=(",", ":"))
