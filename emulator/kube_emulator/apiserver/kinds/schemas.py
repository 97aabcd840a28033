"""Schemas of the built-in kinds, from the OpenAPI definitions that kubernetes-validate ships.

The definitions keep Kubernetes' extensions (list types, merge keys), so pruning, strict decoding,
strategic merge, server-side apply and `kubectl explain` of built-in kinds need no tables here.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

from kube_emulator.apiserver.kinds.catalogue import Kind

Schema = dict[str, Any]

KUBERNETES = "1.37.0"
_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
_ANY: Schema = {"x-kubernetes-preserve-unknown-fields": True}
_SPECIAL: dict[str, Schema] = {
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": {
        "x-kubernetes-int-or-string": True,
        "anyOf": [{"type": "integer"}, {"type": "string"}],
    },
    "io.k8s.apimachinery.pkg.api.resource.Quantity": {
        "anyOf": [{"type": "string"}, {"type": "number"}]
    },
    _META + "FieldsV1": {"type": "object", **_ANY, "x-kubernetes-map-type": "atomic"},
    "io.k8s.apimachinery.pkg.runtime.RawExtension": {"type": "object", **_ANY},
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON": _ANY,
}
_JSON_SCHEMA_PROPS = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps"
_DEFAULTED_KEYS = {
    "io.k8s.api.core.v1.ContainerPort": ("protocol", "TCP"),
    "io.k8s.api.core.v1.ServicePort": ("protocol", "TCP"),
}
"""Keys of list items that may be left out; the JSON Schema form does not carry their defaults."""


@cache
def definitions() -> dict[str, Schema]:
    """Every OpenAPI definition by its name, with `$ref` to its neighbours."""
    folder = f"kubernetes-json-schema/v{KUBERNETES}-local"
    text = (files("kubernetes_validate") / folder / "_definitions.json").read_text()
    found: dict[str, Schema] = json.loads(text)["$defs"]
    return found


@cache
def _names() -> dict[tuple[str, str, str], str]:
    return {
        (gvk["group"], gvk["version"], gvk["kind"]): name
        for name, schema in definitions().items()
        if len(gvks := schema.get("x-kubernetes-group-version-kind", [])) == 1
        for gvk in gvks
    }


def definition_name(group: str, version: str, kind: str) -> str | None:
    return _names().get((group, version, kind))


@cache
def _inline(name: str) -> Schema:
    if name == _JSON_SCHEMA_PROPS:
        return _json_schema_props()
    schema = _SPECIAL.get(name) or _convert(definitions()[name])
    if name in _DEFAULTED_KEYS:
        key, default = _DEFAULTED_KEYS[name]
        schema["properties"][key] = {**schema["properties"][key], "default": default}
    return schema


def _convert(schema: Schema) -> Schema:
    """Inline references, and drop the nulls that the JSON Schema form adds to optional types."""
    if "$ref" in schema:
        return _inline(schema["$ref"].removeprefix("#/$defs/"))
    out = dict(schema)
    if isinstance(out.get("type"), list):
        out["type"] = next(t for t in out["type"] if t != "null")
    if "properties" in out:
        out["properties"] = {
            key: {
                **_convert(sub),
                **{k: v for k, v in sub.items() if k.startswith("x-") or k == "description"},
            }
            for key, sub in out["properties"].items()
        }
    for key in ("items", "additionalProperties"):
        if isinstance(out.get(key), dict):
            out[key] = _convert(out[key])
    return out


def _json_schema_props() -> Schema:
    """The schema of schemas, which contains itself; without a type, as members may be booleans."""
    node: Schema = {}
    nested = {
        **dict.fromkeys(("items", "not", "additionalProperties", "additionalItems"), node),
        **{key: {"type": "array", "items": node} for key in ("allOf", "anyOf", "oneOf")},
        **{key: {"type": "object", "additionalProperties": node} for key in _SCHEMA_MAPS},
    }
    declared = definitions()[_JSON_SCHEMA_PROPS]["properties"]
    node["properties"] = {k: nested[k] if k in nested else _convert(v) for k, v in declared.items()}
    return node


_SCHEMA_MAPS = ("properties", "patternProperties", "definitions", "dependencies")


@cache
def object_meta() -> Schema:
    return _inline(_META + "ObjectMeta")


@cache
def _builtin(group: str, version: str, kind: str) -> Schema:
    name = definition_name(group, version, kind)
    return _inline(name) if name else {"type": "object", **_ANY}


def schema_of(kind: Kind) -> Schema:
    """The schema of whole objects of this kind, metadata included."""
    return kind.schema or _builtin(kind.group, kind.version, kind.kind)


_PLAIN: Schema = {"type": "string"}
_INT_OR_STRING = {"anyOf": [{"type": "integer"}, {"type": "string"}]}


def custom_schema(definition: Schema) -> Schema:
    """The schema of whole custom resources, from a version entry of their definition."""
    own: Schema = _explicit(definition.get("schema", {}).get("openAPIV3Schema", _ANY))
    properties = {
        **own.get("properties", {}),
        "apiVersion": _PLAIN,
        "kind": _PLAIN,
        "metadata": object_meta(),
    }
    return {**own, "properties": properties}


def _explicit(schema: Schema) -> Schema:
    """Spell out what `x-kubernetes-int-or-string` means where the schema does not."""
    out = dict(schema)
    if out.get("x-kubernetes-int-or-string") and "anyOf" not in out:
        out |= _INT_OR_STRING
    if "properties" in out:
        out["properties"] = {k: _explicit(v) for k, v in out["properties"].items()}
    for key in ("items", "additionalProperties"):
        if isinstance(out.get(key), dict):
            out[key] = _explicit(out[key])
    return out
