"""What a CEL rule may cost at most, and the fields it names that do not exist.

An estimate after the API server's own (cel-go's checker): every node costs about one unit, a string
a tenth of a unit per byte, and a loop its body times the longest list that a request can hold. What
is unbounded is taken to be as long as a request may be. A rule over the budget is refused when its
CustomResourceDefinition is created, which is why lists and strings that rules walk need bounds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kube_emulator.apiserver.kinds.cel_syntax import Node

Schema = dict[str, Any]

RULE_BUDGET = 10_000_000
TOTAL_BUDGET = 100_000_000
_REQUEST_BYTES = 3 * 1024 * 1024
_PER_BYTE = 0.1
_MACROS = ("all", "exists", "exists_one", "existsOne", "map", "filter")
_UNKNOWN: Schema = {"x-kubernetes-preserve-unknown-fields": True}
_BOOL: Schema = {"type": "boolean"}
_INTEGER: Schema = {"type": "integer"}


class UndefinedField(Exception):
    """A rule selects a field that the schema does not have."""


@dataclass(frozen=True)
class Estimate:
    """An upper bound on the cost of a node; `size` is in bytes or elements, inf if unknown."""

    cost: float
    schema: Schema
    size: float = 1


def cardinality(schema: Schema) -> float:
    """How many elements a list or map can hold, by its bounds or by what fits into a request."""
    bound = schema.get("maxItems", schema.get("maxProperties"))
    if bound is not None:
        return float(bound)
    element = schema.get("items") or schema.get("additionalProperties") or {}
    overhead = 1 if "items" in schema else 4
    return _REQUEST_BYTES // (_smallest(element if isinstance(element, dict) else {}) + overhead)


def _smallest(schema: Schema) -> int:
    """The bytes of the shortest JSON text of a value."""
    match schema.get("type"):
        case "object":
            required = schema.get("required", [])
            properties = schema.get("properties", {})
            inner = sum(len(k) + 4 + _smallest(properties.get(k, {})) for k in required)
            return 2 + inner
        case "array" | "string":
            return 2
        case "boolean":
            return 4
    return 1


def _size(schema: Schema) -> float:
    match schema.get("type"):
        case "string":
            if "enum" in schema:
                return float(max(len(str(v)) for v in schema["enum"]))
            return float(schema["maxLength"] * 4 if "maxLength" in schema else _REQUEST_BYTES - 2)
        case "array":
            return cardinality(schema)
        case "object" if isinstance(schema.get("additionalProperties"), dict):
            return cardinality(schema)
    return 1


def estimate(node: Node, variables: Mapping[str, Schema]) -> Estimate:
    """Estimate one expression. Raises UndefinedField."""
    match node.kind:
        case "literal":
            return Estimate(0, _literal(node.value), len(str(node.value)))
        case "name":
            schema = variables.get(node.value, _UNKNOWN)
            return Estimate(1, schema, _size(schema))
        case "select":
            return _select(node, variables)
        case "index":
            return _index(node, variables)
        case "list":
            parts = [estimate(a, variables) for a in node.args]
            items = parts[0].schema if parts else _UNKNOWN
            total = 10 + sum(p.cost for p in parts)
            return Estimate(total, {"type": "array", "items": items}, len(parts))
        case "map":
            return Estimate(30 + sum(estimate(a, variables).cost for a in node.args), _UNKNOWN)
    if node.target is not None and node.value in _MACROS:
        return _loop(node, variables)
    return _call(node, variables)


def _literal(value: Any) -> Schema:
    match value:
        case bool():
            return _BOOL
        case str():
            return {"type": "string"}
        case int():
            return _INTEGER
    return _UNKNOWN


def _select(node: Node, variables: Mapping[str, Schema]) -> Estimate:
    assert node.target is not None
    operand = estimate(node.target, variables)
    schema = operand.schema
    properties = schema.get("properties", {})
    additional = schema.get("additionalProperties")
    free = schema.get("x-kubernetes-preserve-unknown-fields") or schema.get("type") != "object"
    if node.value in properties:
        found = properties[node.value]
    elif isinstance(additional, dict):
        found = additional
    elif free:
        found = _UNKNOWN
    else:
        raise UndefinedField(node.value)
    return Estimate(operand.cost + 1, found, _size(found))


def _index(node: Node, variables: Mapping[str, Schema]) -> Estimate:
    assert node.target is not None
    operand, index = estimate(node.target, variables), estimate(node.args[0], variables)
    element = operand.schema.get("items") or operand.schema.get("additionalProperties")
    schema = element if isinstance(element, dict) else _UNKNOWN
    return Estimate(operand.cost + index.cost + 1, schema, _size(schema))


def _loop(node: Node, variables: Mapping[str, Schema]) -> Estimate:
    assert node.target is not None
    over = estimate(node.target, variables)
    element = over.schema.get("items", {"type": "string"} if over.schema.get("type") else _UNKNOWN)
    inner = {**variables, str(node.args[0].value): element}
    bodies = [estimate(a, inner) for a in node.args[1:]]
    once = sum(b.cost for b in bodies) + 3
    total = over.cost + over.size * once + 1
    if node.value == "map":
        made = {"type": "array", "items": bodies[-1].schema}
        return Estimate(total + 10 * over.size, made, over.size)
    if node.value == "filter":
        return Estimate(total + 10 * over.size, over.schema, over.size)
    return Estimate(total, _BOOL)


def _call(node: Node, variables: Mapping[str, Schema]) -> Estimate:
    target = [] if node.target is None else [estimate(node.target, variables)]
    parts = [*target, *(estimate(a, variables) for a in node.args)]
    cost = sum(p.cost for p in parts)
    sizes = [p.size for p in parts]
    match node.value:
        case "?:":
            chosen = max(parts[1:], key=lambda p: p.size)
            return Estimate(
                parts[0].cost + max(p.cost for p in parts[1:]), chosen.schema, chosen.size
            )
        case "&&" | "||":
            return Estimate(cost, _BOOL)
        case "==" | "!=":
            return Estimate(cost + max(1, min(sizes) * _PER_BYTE), _BOOL)
        case "in":
            return Estimate(cost + max(1, sizes[1]), _BOOL)
        case "+" if any(p.schema.get("type") in ("string", "array") for p in parts):
            known = next(p.schema for p in parts if p.schema.get("type") in ("string", "array"))
            return Estimate(cost + max(1, sum(sizes) * _PER_BYTE), known, sum(sizes))
        case "matches":
            text, pattern = sizes[-2] * _PER_BYTE, sizes[-1] * 0.25
            return Estimate(cost + max(1, text) * max(1, pattern), _BOOL)
        case "contains":
            return Estimate(
                cost + max(1, sizes[0] * _PER_BYTE) * max(1, sizes[1] * _PER_BYTE), _BOOL
            )
        case "startsWith" | "endsWith":
            return Estimate(cost + max(1, sizes[1] * _PER_BYTE), _BOOL)
        case "string":
            known_size = sizes[0] if parts[0].schema.get("type") == "string" else math.inf
            return Estimate(cost + 1, {"type": "string"}, known_size)
        case "split":
            items = {"type": "array", "items": {"type": "string"}}
            return Estimate(cost + max(1, sizes[0] * _PER_BYTE), items, sizes[0])
    made = _BOOL if node.value in ("!", "has", "<", "<=", ">", ">=") else _INTEGER
    return Estimate(cost + 1, made if node.value in _RESULTS else _UNKNOWN)


_RESULTS = ("!", "has", "<", "<=", ">", ">=", "size", "int", "+", "-", "*", "/", "%")
