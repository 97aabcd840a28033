"""Request bodies: JSON or YAML to objects, unknown and duplicate fields, wrong types."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import yaml

from kube_emulator.apiserver.kinds import errors
from kube_emulator.apiserver.kinds.catalogue import Kind, Object
from kube_emulator.apiserver.kinds.fields import Schema, element_schema
from kube_emulator.apiserver.kinds.schemas import object_meta, schema_of
from kube_emulator.apiserver.wire.protobuf import PROTOBUF, decode_protobuf
from kube_emulator.apiserver.wire.request import WriteOptions
from kube_schema.field_errors import FieldError, child
from kube_schema.structural import prune, validate

JSON, YAML = "application/json", "application/yaml"


class _Repeating(dict[str, Any]):
    """A JSON object in which a field stands more than once; `repeated` names those fields."""

    repeated: list[str]


def decode_body(
    raw: bytes, content_type: str, options: WriteOptions | None = None, kind: Kind | None = None
) -> Any:
    """Parse a body by its media type. Raises StatusError 400 (malformed) or 415 (unknown)."""
    media = content_type.partition(";")[0].strip() or JSON
    if media == PROTOBUF:
        return decode_protobuf(raw)
    try:
        if "yaml" in media:
            value = yaml.safe_load(raw)
        elif "json" in media:
            value = json.loads(raw, object_pairs_hook=_object)
        else:
            raise errors.unsupported_media_type([JSON, YAML, PROTOBUF])
    except (ValueError, yaml.YAMLError) as error:
        raise errors.bad_request(f"the request body cannot be decoded: {error}") from error
    if options is not None:
        repeated = [f'duplicate field "{path}"' for path in _repeated(value, "")]
        _report(repeated, options, kind)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) == len(pairs):
        return value
    names = [name for name, _ in pairs]
    repeating = _Repeating(value)
    repeating.repeated = sorted({name for name in names if names.count(name) > 1})
    return repeating


def _repeated(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, _Repeating):
        yield from (child(path, name) for name in value.repeated)
    if isinstance(value, dict):
        for name, sub in value.items():
            yield from _repeated(sub, child(path, name))
    elif isinstance(value, list):
        for i, sub in enumerate(value):
            yield from _repeated(sub, child(path, i))


def _report(problems: list[str], options: WriteOptions, kind: Kind | None) -> None:
    if options.validation == "Strict" and problems:
        text = "strict decoding error: " + ", ".join(problems)
        if kind is not None:
            version = f'{kind.kind} in version "{kind.version}"'
            text = f"{version} cannot be handled as a {kind.kind}: {text}"
        raise errors.bad_request(text)
    if options.validation == "Warn":
        options.warnings += problems


def check_type(kind: Kind, body: Object) -> None:
    """Refuse a body that says it is something else; a custom resource must say what it is."""
    version, name = body.get("apiVersion"), body.get("kind")
    if kind.definition is None:
        if (version or kind.api_version, name or kind.kind) != (kind.api_version, kind.kind):
            raise errors.bad_request(
                f'{name} in version "{version}" cannot be handled as a {kind.kind}'
            )
        return
    if not version or not name:
        missing = "apiVersion" if name else "Kind"
        shown = json.dumps(body)
        raise errors.bad_request(
            f"the object provided is unrecognized (must be of type {kind.kind}): Object "
            f"'{missing}' is missing in '{shown}'"
        )
    if version != kind.api_version:
        raise errors.bad_request(
            f"the API version in the data ({version}) does not match the expected API version "
            f"({kind.api_version})"
        )
    if name != kind.kind:
        text = f"Invalid value: {json.dumps(name)}: must be {kind.kind}"
        object_name = (body.get("metadata") or {}).get("name", "")
        raise errors.invalid(
            dataclasses.replace(kind, kind=name), object_name, [FieldError("kind", text)]
        )


def drop_unknown_fields(
    kind: Kind, obj: Object, options: WriteOptions, patched: bool = False
) -> None:
    """Prune, in place, what the schema does not know; refuse it or warn, as asked for.

    The refusal is 400, or 422 where the object came out of a patch.
    """
    whole = json.dumps(obj, separators=(",", ":"), sort_keys=True) if patched else ""
    metadata = obj.get("metadata")
    if kind.definition is None:
        omit_empty(schema_of(kind), obj)
    unknown = prune(schema_of(kind), obj)
    if isinstance(metadata, dict):
        omit_empty(object_meta(), metadata)
        unknown += prune(object_meta(), metadata, "metadata")
    problems = [f'unknown field "{path}"' for path in sorted(unknown, key=_metadata_first)]
    if patched and problems and options.validation == "Strict":
        detail = f"Invalid value: {json.dumps(whole)}: strict decoding error: {', '.join(problems)}"
        raise errors.invalid_patch(detail)
    _report(problems, options, kind)


def _metadata_first(path: str) -> tuple[bool, str]:
    return not path.startswith("metadata."), path


def omit_empty(schema: Schema, value: Any) -> None:
    """Drop, in place, what a built-in's typed form does not keep: nulls, empty maps and lists."""
    if isinstance(value, dict):
        for key in list(value):
            sub = element_schema(schema, key)
            plural = "additionalProperties" in sub or sub.get("type") == "array"
            if value[key] is None or (plural and value[key] in ({}, [])):
                del value[key]
            else:
                omit_empty(sub, value[key])
    elif isinstance(value, list):
        for item in value:
            omit_empty(schema.get("items", {}), item)


def check_types(kind: Kind, obj: Object) -> list[FieldError]:
    """Check a built-in's shape: a wrong type is a decoding error (400), the rest is returned."""
    found = validate(schema_of(kind), obj)
    _refuse_types(kind, found)
    # Duplicates are left to each kind's own validation, which names the field that repeats.
    return [e for e in found if e.path and e.kind != "FieldValueDuplicate"]


def check_metadata_types(kind: Kind, metadata: Any) -> None:
    """Refuse metadata whose fields have wrong types (400)."""
    _refuse_types(kind, validate(object_meta(), metadata), "metadata.")


def _refuse_types(kind: Kind, found: list[FieldError], prefix: str = "") -> None:
    wrong = [e for e in found if e.kind == "FieldValueTypeInvalid"]
    if wrong:
        shown = "; ".join(f"{prefix}{e}" for e in wrong)
        version = f'{kind.kind} in version "{kind.version}"'
        raise errors.bad_request(f"{version} cannot be handled as a {kind.kind}: {shown}")


def admit_object(
    kind: Kind, namespace: str, body: Any, options: WriteOptions, patched: bool = False
) -> Object:
    """Check that the body is an object of this kind and place, and drop unknown fields."""
    if not isinstance(body, dict):
        raise errors.bad_request(f"the body is not a {kind.kind} object")
    check_type(kind, body)
    obj: Object = {**body, "apiVersion": kind.api_version, "kind": kind.kind}
    obj["metadata"] = meta = dict(obj.get("metadata") or {})
    drop_unknown_fields(kind, obj, options, patched)
    check_metadata_types(kind, meta)
    if kind.namespaced and meta.get("namespace", namespace) != namespace:
        raise errors.bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )
    return obj


def admit_applied(kind: Kind, namespace: str, body: Any) -> Object:
    """Admit an applied configuration: all it names must be in the schema (500)."""
    if not isinstance(body, dict) or not body.get("kind"):
        raise errors.bad_request("invalid object type: /, Kind=")
    found = WriteOptions("", validation="Warn")
    config = admit_object(kind, namespace, body, found)
    if found.warnings:
        meta = body.get("metadata") or {}
        path = found.warnings[0].partition('"')[2].rstrip('"')
        raise errors.internal(
            f"failed to create typed patch object ({meta.get('namespace', '')}/"
            f"{meta.get('name', '')}; {kind.api_version}, Kind={kind.kind}): .{path}: "
            "field not declared in schema"
        )
    return config
