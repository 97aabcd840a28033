"""OpenAPI: what `kubectl explain` reads and what clients check before they send."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from kube_emulator.apiserver.kinds.catalogue import Kind, Object, Registry
from kube_emulator.apiserver.kinds.schemas import KUBERNETES, definition_name, definitions

Schema = dict[str, Any]
_REF, _COMPONENT = "#/$defs/", "#/components/schemas/"
_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
_INFO = {"title": "Kubernetes (emulated)", "version": f"v{KUBERNETES}"}
_PLAIN = {"type": "string"}


def group_path(group: str, version: str) -> str:
    return f"apis/{group}/{version}" if group else f"api/{version}"


def index(registry: Registry) -> Object:
    """The list of OpenAPI v3 documents; the hash changes when a document does."""
    paths = {}
    for group, versions in registry.groups().items():
        for version in versions:
            path = group_path(group, version)
            text = json.dumps(document(registry, group, version)).encode()
            digest = hashlib.sha256(text).hexdigest()
            paths[path] = {"serverRelativeURL": f"/openapi/v3/{path}?hash={digest}"}
    return {"paths": paths}


def document(registry: Registry, group: str, version: str) -> Object | None:
    """The OpenAPI v3 document of one group version; None if it is not served."""
    schemas: dict[str, Schema] = {}
    paths: dict[str, Any] = {}
    kinds = registry.groups().get(group, {}).get(version)
    if kinds is None:
        return None
    for kind in kinds:
        _add_schema(kind, schemas)
        paths |= _paths(kind)
    return {
        "openapi": "3.0.0",
        "info": _INFO,
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _gvk(kind: Kind) -> dict[str, str]:
    return {"group": kind.group, "version": kind.version, "kind": kind.kind}


def _component(kind: Kind) -> str:
    known = definition_name(kind.group, kind.version, kind.kind) if not kind.definition else None
    reversed_group = ".".join(reversed(kind.group.split(".")))
    return known or f"{reversed_group}.{kind.version}.{kind.kind}"


def _add_schema(kind: Kind, schemas: dict[str, Schema]) -> None:
    if kind.definition is None:
        _add_definition(_component(kind), schemas)
        return
    _add_definition(_META, schemas)
    own: Schema = dict(kind.definition.get("schema", {}).get("openAPIV3Schema", {}))
    own["properties"] = {
        "apiVersion": _PLAIN,
        "kind": _PLAIN,
        "metadata": {"description": "Standard object's metadata.", **_reference(_META)},
        **{k: v for k, v in own.get("properties", {}).items() if k not in _TYPE_META},
    }
    own["x-kubernetes-group-version-kind"] = [_gvk(kind)]
    schemas[_component(kind)] = own


_TYPE_META = ("apiVersion", "kind", "metadata")


def _reference(name: str) -> Schema:
    return {"allOf": [{"$ref": _COMPONENT + name}], "default": {}}


def _add_definition(name: str, schemas: dict[str, Schema]) -> None:
    if name in schemas or name not in definitions():
        return
    schemas[name] = {}
    schemas[name] = _published(definitions()[name], schemas)


def _published(schema: Schema, schemas: dict[str, Schema]) -> Schema:
    """A definition in OpenAPI v3's form: references under components, no null types."""
    if "$ref" in schema:
        name = schema["$ref"].removeprefix(_REF)
        _add_definition(name, schemas)
        extra = {k: v for k, v in schema.items() if k != "$ref"}
        return {**extra, "allOf": [{"$ref": _COMPONENT + name}]}
    out: Schema = {}
    for key, value in schema.items():
        if key == "type" and isinstance(value, list):
            out[key] = next(t for t in value if t != "null")
        elif key == "properties":
            out[key] = {name: _published(sub, schemas) for name, sub in value.items()}
        elif key in ("items", "additionalProperties") and isinstance(value, dict):
            out[key] = _published(value, schemas)
        elif key == "oneOf":
            out[key] = [_published(sub, schemas) for sub in value]
        else:
            out[key] = value
    return out


def _parameter(name: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": True}}


_WRITE_PARAMETERS = [_parameter(n) for n in ("dryRun", "fieldManager", "fieldValidation")]


def _paths(kind: Kind) -> dict[str, Any]:
    root = f"/{group_path(kind.group, kind.version)}"
    base = f"{root}/namespaces/{{namespace}}" if kind.namespaced else root
    content = {"application/json": {"schema": {"$ref": _COMPONENT + _component(kind)}}}
    answer = {"responses": {"200": {"description": "OK", "content": content}}}

    def operation(action: str, parameters: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": _gvk(kind),
            "parameters": parameters,
            **answer,
        }

    collection = {"post": operation("post", _WRITE_PARAMETERS), "get": operation("list", [])}
    item = {
        "get": operation("get", []),
        "put": operation("put", _WRITE_PARAMETERS),
        "patch": operation("patch", [*_WRITE_PARAMETERS, _parameter("force")]),
        "delete": operation("delete", [_parameter("dryRun")]),
    }
    paths = {f"{base}/{kind.plural}": collection, f"{base}/{kind.plural}/{{name}}": item}
    if kind.namespaced:
        paths[f"{root}/{kind.plural}"] = {"get": operation("list", [])}
    return paths
