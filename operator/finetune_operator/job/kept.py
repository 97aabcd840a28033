"""What of an object is kept: anyone may fill one with a MiB of what nobody here reads."""

from __future__ import annotations

from typing import Any

from finetune_api.job import GROUP, KIND
from finetune_contract.model import canonical_json, sha256_digest
from finetune_operator.job.names import Object
from finetune_operator.job.parts import part, parts, words
from finetune_operator.job.resources import POD

_CONTENTS = ("data", "binaryData")  # of a ConfigMap


def kept(body: Object) -> Object:
    """Return an object without what is only ever written, or compared as a whole."""
    metadata = {name: value for name, value in body["metadata"].items() if name != "managedFields"}
    if body["kind"] == "ConfigMap" and "contents" not in body:
        told = {name: body[name] for name in _CONTENTS if name in body}
        others = {name: value for name, value in body.items() if name not in told}
        return {**others, "metadata": metadata, "contents": _digest(told)}
    if body["kind"] == KIND:  # whatever a newer CRD calls a template
        return {**body, "metadata": metadata}
    if body["kind"] != POD:
        spec = part(body, "spec")
        digests = {name: _digest(value) for name, value in spec.items() if _makes_pods(value)}
        given = {"spec": {**spec, **digests}} if digests else {}
        return {**body, **given, "metadata": metadata}
    if annotations := part(metadata, "annotations"):
        own = {name: text for name, text in annotations.items() if name.startswith(f"{GROUP}/")}
        metadata["annotations"] = own
    spec = part(body, "spec")
    first = [
        {name: words(container, name) for name in ("name", "restartPolicy")}
        for container in parts(spec, "initContainers")
    ]
    placed = {"nodeName": words(spec, "nodeName")} if spec.get("nodeName") else {}
    return {**body, "metadata": metadata, "spec": {"initContainers": first, **placed}}


def _makes_pods(value: Any) -> bool:
    """Tell whether a part of a workload's spec is by role what its pods are made of."""
    roles = value.values() if isinstance(value, dict) else ()
    return any(isinstance(role, dict) and "template" in role for role in roles)


def _digest(value: Object) -> str:
    return sha256_digest(canonical_json(value).encode())
