"""Bodies in protobuf, from bytes written by hand after the wire format's specification."""

from __future__ import annotations

import pytest

from kube_emulator.apiserver.kinds.errors import StatusError
from kube_emulator.apiserver.wire.protobuf import decode_protobuf


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def block(field: int, value: bytes | str) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return varint(field << 3 | 2) + varint(len(raw)) + raw


def body(kind: str, raw: bytes, version: str = "v1") -> bytes:
    return b"k8s\x00" + block(1, block(1, version) + block(2, kind)) + block(2, raw)


META = block(1, block(1, "n") + block(2, "") + block(11, block(1, "k") + block(2, "v")))


def test_a_config_map() -> None:
    raw = META + block(2, block(1, "a") + block(2, "b")) + block(2, block(1, "c")) + number(4, 1)
    assert decode_protobuf(body("ConfigMap", raw)) == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "n", "labels": {"k": "v"}},
        "data": {"a": "b", "c": ""},
        "immutable": True,
    }


def test_bytes_become_base64_and_long_values_pass() -> None:
    raw = META + block(2, block(1, "a") + block(2, b"\x00" * 300))
    decoded = decode_protobuf(body("Secret", raw))
    assert decoded["data"]["a"] == "AAAA" * 100


def test_lists_numbers_and_unknown_fields() -> None:
    rule = block(1, "get") + block(1, "list") + block(2, "")
    raw = META + block(2, rule) + block(2, block(1, "*")) + block(99, "later") + number(98, 1)
    raw += varint(97 << 3 | 1) + b"\x00" * 8 + varint(96 << 3 | 5) + b"\x00" * 4
    assert decode_protobuf(body("Role", raw))["rules"] == [
        {"verbs": ["get", "list"], "apiGroups": [""]},
        {"verbs": ["*"]},
    ]


def test_zero_and_negative_numbers_stay() -> None:
    assert decode_protobuf(body("DeleteOptions", number(1, 0)))["gracePeriodSeconds"] == 0
    negative = number(1, (1 << 64) - 5)
    assert decode_protobuf(body("DeleteOptions", negative))["gracePeriodSeconds"] == -5
    assert decode_protobuf(body("ServiceAccount", number(4, 0))) == {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "automountServiceAccountToken": False,
    }


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"not protobuf", 400),
        (b"k8s\x00\xff", 400),
        (b"k8s\x00" + block(1, block(2, "ConfigMap"))[:-1], 400),
        (b"k8s\x00" + varint(1 << 3 | 3), 400),
        (b"k8s\x00", 400),
        (body("Pod", b""), 501),
    ],
)
def test_what_cannot_be_decoded(raw: bytes, code: int) -> None:
    with pytest.raises(StatusError) as refused:
        decode_protobuf(raw)
    assert refused.value.code == code


def test_a_kind_without_a_table_is_named_with_a_remedy() -> None:
    with pytest.raises(StatusError, match="Pod objects in protobuf: write it as YAML"):
        decode_protobuf(body("Pod", b""))
