"""Which form of an object a client asked for, and writing it: plain, Table, metadata only."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from kube_emulator.apiserver.kinds import errors
from kube_emulator.apiserver.kinds.catalogue import Kind, Object
from kube_emulator.apiserver.wire.tables import partial_metadata, table

_PLAIN = ("application/json", "application/*", "*/*", "")


@dataclass(frozen=True)
class Form:
    """The negotiated form: "" (plain), Table or PartialObjectMetadata; `include` is for rows."""

    name: str = ""
    include: str = "Metadata"


def negotiate(accept: str, include: str) -> Form:
    """Choose the first form of an Accept header that is spoken here. Raises StatusError 406."""
    for part in accept.split(","):
        media, *params = [p.strip() for p in part.split(";")]
        asked = dict(p.partition("=")[::2] for p in params)
        if media not in _PLAIN:
            continue
        if asked.get("g") == "meta.k8s.io" and asked.get("v") == "v1":
            name = asked.get("as", "").removesuffix("List")
            if name in ("Table", "PartialObjectMetadata"):
                return Form(name, include or "Metadata")
        elif "as" not in asked:
            return Form()
    message = (
        "only the following media types are accepted: application/json, application/json;as=Table;"
        "v=v1;g=meta.k8s.io, application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
    )
    raise errors.StatusError(406, "NotAcceptable", message)


def served(kind: Kind, obj: Object) -> Object:
    """A stored object in the version it is read through."""
    if obj.get("apiVersion") == kind.api_version:
        return obj
    return {**obj, "apiVersion": kind.api_version}


def one(kind: Kind, obj: Object, form: Form) -> Object:
    """One object as the client asked for it; a Status stays a Status."""
    if obj.get("kind") != kind.kind:
        return obj
    shown = served(kind, obj)
    if form.name == "Table":
        meta = {"resourceVersion": obj["metadata"].get("resourceVersion", "")}
        return table(kind, [shown], meta, form.include)
    return partial_metadata(shown) if form.name else shown


def many(kind: Kind, objects: list[Object], meta: Object, form: Form) -> Object:
    """A list as the client asked for it."""
    shown = [served(kind, obj) for obj in objects]
    if form.name == "Table":
        return table(kind, shown, meta, form.include)
    if form.name:
        return {
            "kind": "PartialObjectMetadataList",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": meta,
            "items": [partial_metadata(obj) for obj in shown],
        }
    return {
        "kind": kind.list_kind,
        "apiVersion": kind.api_version,
        "metadata": meta,
        "items": shown,
    }


def to_json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
