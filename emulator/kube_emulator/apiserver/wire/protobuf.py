"""Request bodies in Kubernetes' protobuf encoding, for the kinds kubectl and Helm send so.

kubectl's `create` commands and Helm's release storage send typed objects as protobuf and do not
fall back to JSON. Answers are always JSON, which those clients accept. Fields that only the server
sets are left out of the tables: unknown fields are skipped.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kube_emulator.apiserver.kinds import errors

PROTOBUF = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\x00"


@dataclass(frozen=True)
class _Field:
    """One field of a message: its JSON name, and what its value is."""

    name: str
    type: str = "string"
    repeated: bool = False


Message = dict[int, _Field]


def _fields(**numbered: str) -> Message:
    """Declare a message: `name="1"`, `name="3 bool"`, `name="2 repeated PolicyRule"`."""
    message: Message = {}
    for name, text in numbered.items():
        number, *words = text.split()
        repeated = "repeated" in words
        kinds = [word for word in words if word != "repeated"]
        message[int(number)] = _Field(name, kinds[0] if kinds else "string", repeated)
    return message


_STANDARD = {"metadata": "1 ObjectMeta"}

_MESSAGES: dict[str, Message] = {
    "ObjectMeta": _fields(
        name="1",
        generateName="2",
        namespace="3",
        uid="5",
        resourceVersion="6",
        labels="11 map",
        annotations="12 map",
        ownerReferences="13 repeated OwnerReference",
        finalizers="14 repeated",
    ),
    "OwnerReference": _fields(
        kind="1",
        name="3",
        uid="4",
        apiVersion="5",
        controller="6 bool",
        blockOwnerDeletion="7 bool",
    ),
    "Namespace": _fields(**_STANDARD),
    "ConfigMap": _fields(**_STANDARD, data="2 map", binaryData="3 bytesmap", immutable="4 bool"),
    "Secret": _fields(
        **_STANDARD, data="2 bytesmap", type="3", stringData="4 map", immutable="5 bool"
    ),
    "ServiceAccount": _fields(
        **_STANDARD,
        imagePullSecrets="3 repeated LocalObjectReference",
        automountServiceAccountToken="4 bool",
    ),
    "LocalObjectReference": _fields(name="1"),
    "DeleteOptions": _fields(
        gracePeriodSeconds="1 int",
        preconditions="2 Preconditions",
        orphanDependents="3 bool",
        propagationPolicy="4",
        dryRun="5 repeated",
    ),
    "Preconditions": _fields(uid="1", resourceVersion="2"),
    "TokenRequest": _fields(**_STANDARD, spec="2 TokenRequestSpec"),
    "TokenRequestSpec": _fields(
        audiences="1 repeated", boundObjectRef="3 BoundObjectReference", expirationSeconds="4 int"
    ),
    "BoundObjectReference": _fields(kind="1", apiVersion="2", name="3", uid="4"),
    "Role": _fields(**_STANDARD, rules="2 repeated PolicyRule"),
    "ClusterRole": _fields(**_STANDARD, rules="2 repeated PolicyRule"),
    "PolicyRule": _fields(
        verbs="1 repeated",
        apiGroups="2 repeated",
        resources="3 repeated",
        resourceNames="4 repeated",
        nonResourceURLs="5 repeated",
    ),
    "RoleBinding": _fields(**_STANDARD, subjects="2 repeated Subject", roleRef="3 RoleRef"),
    "ClusterRoleBinding": _fields(**_STANDARD, subjects="2 repeated Subject", roleRef="3 RoleRef"),
    "Subject": _fields(kind="1", apiGroup="2", name="3", namespace="4"),
    "RoleRef": _fields(apiGroup="1", kind="2", name="3"),
    "Eviction": _fields(**_STANDARD, deleteOptions="2 DeleteOptions"),
    "Unknown": _fields(typeMeta="1 TypeMeta", raw="2 bytes"),
    "TypeMeta": _fields(apiVersion="1", kind="2"),
    "Entry": _fields(key="1", value="2"),
    "BytesEntry": _fields(key="1", value="2 base64"),
}


def decode_protobuf(raw: bytes) -> dict[str, Any]:
    """Decode a body. Raises StatusError 400 (malformed) or 501 (a kind with no table here)."""
    if not raw.startswith(_MAGIC):
        raise errors.bad_request("the body does not begin like Kubernetes' protobuf encoding")
    try:
        envelope = _decode("Unknown", raw[len(_MAGIC) :])
        meta = envelope["typeMeta"]
        if meta["kind"] not in _MESSAGES:
            raise errors.not_implemented(
                f"{meta['kind']} objects in protobuf: write it as YAML and `kubectl apply` it"
            )
        body = _decode(meta["kind"], envelope.get("raw", b""))
    except (IndexError, KeyError, ValueError) as error:
        raise errors.bad_request(f"the protobuf body cannot be decoded: {error}") from error
    return {**meta, **body}


def _decode(message: str, raw: bytes) -> dict[str, Any]:
    fields = _MESSAGES[message]
    decoded: dict[str, Any] = {}
    for number, value in _wire(raw):
        field = fields.get(number)
        if field is None:
            continue
        if field.type in ("map", "bytesmap"):
            entry = _decode("Entry" if field.type == "map" else "BytesEntry", value)
            decoded.setdefault(field.name, {})[entry.get("key", "")] = entry.get("value", "")
        elif field.repeated:
            decoded.setdefault(field.name, []).append(_value(field.type, value))
        elif value != b"" or field.type not in ("string", "bytes"):
            decoded[field.name] = _value(field.type, value)
    return decoded


def _value(kind: str, value: Any) -> Any:
    match kind:
        case "string":
            return value.decode()
        case "bytes":
            return value
        case "base64":
            return base64.b64encode(value).decode()
        case "bool":
            return bool(value)
        case "int":
            return value - (1 << 64) if value >= 1 << 63 else value
        case _:
            return _decode(kind, value)


def _wire(raw: bytes) -> Iterator[tuple[int, Any]]:
    """The fields of a message as (number, value): bytes for length-delimited ones, else an int."""
    place = 0
    while place < len(raw):
        tag, place = _varint(raw, place)
        match tag & 7:
            case 0:
                value, place = _varint(raw, place)
                yield tag >> 3, value
            case 2:
                size, place = _varint(raw, place)
                if place + size > len(raw):
                    raise ValueError("a field runs past the end")
                yield tag >> 3, raw[place : place + size]
                place += size
            case 1 | 5 as wide:
                place += 8 if wide == 1 else 4
            case kind:
                raise ValueError(f"wire type {kind}")


def _varint(raw: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[place]
        value |= (byte & 0x7F) << shift
        place += 1
        if byte < 0x80:
            return value, place
        shift += 7
