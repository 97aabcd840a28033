"""FineTuneJob's models -> CustomResourceDefinition."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

from finetune_api import job
from finetune_api.types import AFTER, DECIMAL, SIGNED_DECIMAL
from kube_schema.field_errors import Schema


def _column(
    name: str, path: str, meaning: str = "", kind: str = "string", wide: bool = False
) -> dict[str, Any]:
    """Return a column of `kubectl get`, or with `wide` of `kubectl get --output=wide`."""
    said = {"description": meaning} if meaning else {}
    aside = {"priority": 1} if wide else {}
    return {"name": name, "type": kind, **said, **aside, "jsonPath": path}


_REASON = '.status.conditions[?(@.type=="Succeeded")].reason'
_REWARD = "Mean total reward of the last step's completions, under GRPO"
_EVAL = "Loss on data.eval, when last evaluated"
_SAVED = "Step of the newest complete checkpoint"
_COLUMNS = [
    _column("Status", _REASON, "Why the job is where it is"),
    _column("Progress", ".status.progress.summary", "Phase and counter of the running attempt"),
    _column("Attempts", ".status.attempts[-1:].number", "Number of the newest attempt", "integer"),
    _column("GPUs", ".status.plan.gpus", kind="integer"),
    _column("Age", ".metadata.creationTimestamp", kind="date"),
    _column("Reward", ".status.progress.reward", _REWARD, wide=True),
    _column("Loss", ".status.progress.loss", wide=True),
    _column("Eval", ".status.progress.evalLoss", _EVAL, wide=True),
    _column("Saved", ".status.checkpoint.step", _SAVED, "integer", wide=True),
    _column("Artifact", ".status.artifact.uri", wide=True),
]
_DROPPED = ("title", "additionalProperties", "$defs", AFTER)


class _Decimals(GenerateJsonSchema):
    """The API has no floats: a number is written as a string, of either sign if it has no bound."""

    def float_schema(self, schema: core_schema.FloatSchema) -> dict[str, Any]:
        pattern = DECIMAL if schema.get("ge") == 0 else SIGNED_DECIMAL
        return {"type": "string", "maxLength": 24, "pattern": pattern}

    def encode_default(self, dft: Any) -> Any:
        return f"{dft:g}" if isinstance(dft, float) else super().encode_default(dft)


@cache
def schema() -> Schema:
    """Return the structural schema of FineTuneJob. Callers must not change it."""
    raw = job.FineTuneJob.model_json_schema(by_alias=True, schema_generator=_Decimals)
    root = _structural(raw, raw.get("$defs", {}))
    root["properties"]["apiVersion"] = {"type": "string"}
    root["properties"]["kind"] = {"type": "string"}
    root["properties"]["metadata"] = {
        "type": "object",
        "properties": {"name": {"type": "string"}},
    }
    root["required"] = ["spec"]
    _fill_object_defaults(root["properties"]["spec"])
    return root


def custom_resource_definition() -> dict[str, Any]:
    """Return the CRD as a Kubernetes object."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{job.PLURAL}.{job.GROUP}"},
        "spec": {
            "group": job.GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": job.KIND,
                "listKind": f"{job.KIND}List",
                "plural": job.PLURAL,
                "singular": job.SINGULAR,
                "shortNames": [job.SHORT_NAME],
                "categories": ["finetune"],
            },
            "versions": [
                {
                    "name": job.VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": copy.deepcopy(schema())},
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": _COLUMNS,
                }
            ],
        },
    }


def _structural(node: Schema, definitions: dict[str, Schema]) -> Schema:
    """Inline references and reduce JSON Schema to what a structural schema may hold."""
    if "$ref" in node:
        target = definitions[node["$ref"].rsplit("/", 1)[-1]]
        node = {**target, **{k: v for k, v in node.items() if k != "$ref"}}
    if "anyOf" in node and "x-kubernetes-int-or-string" not in node:
        (branch,) = (b for b in node["anyOf"] if b.get("type") != "null")
        rest = {k: v for k, v in node.items() if k not in ("anyOf", "default")}
        node = {**_structural(branch, definitions), **rest}
    out = {k: copy.deepcopy(v) for k, v in node.items() if k not in _DROPPED}
    out.pop("const", None)
    if "const" in node:
        out["enum"] = [node["const"]]
    if "description" in out:
        out["description"] = " ".join(str(out["description"]).split())
    if "properties" in node:
        ordered = _ordered(node["properties"])
        out["properties"] = {k: _structural(v, definitions) for k, v in ordered.items()}
    if "required" in node:
        out["required"] = [name for name in out["properties"] if name in node["required"]]
    if isinstance(node.get("additionalProperties"), dict):
        out["additionalProperties"] = _structural(node["additionalProperties"], definitions)
    if "items" in node:
        out["items"] = _structural(node["items"], definitions)
        if "enum" in out["items"]:
            out["x-kubernetes-list-type"] = "set"
    if out.get("default", ...) is None:
        del out["default"]
    return out


def _ordered(properties: dict[str, Schema]) -> dict[str, Schema]:
    """Return the properties, those that are to stand behind another one moved there."""
    names = [name for name, node in properties.items() if AFTER not in node]
    for name, node in properties.items():
        if AFTER in node:
            names.insert(names.index(node[AFTER]) + 1, name)
    return {name: properties[name] for name in names}


def _fill_object_defaults(node: Schema) -> None:
    """Make every optional stanza that has defaults inside default to {}, so that they apply."""
    required = node.get("required", [])
    for name, sub in node.get("properties", {}).items():
        if "properties" in sub:
            _fill_object_defaults(sub)
            if "default" in sub and name not in required:
                sub["default"] = {}
