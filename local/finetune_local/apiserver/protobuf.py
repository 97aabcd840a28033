"""Request bodies in Kubernetes' protobuf encoding, for the kinds kubectl and Helm send so."""

from __future__ import annotations

from typing import Any

from finetune_local.apiserver import errors

PROTOBUF = "application/vnd.kubernetes.protobuf"


def decode_protobuf(raw: bytes) -> Any:
    raise errors.unsupported_media_type(["application/json", "application/yaml"])
