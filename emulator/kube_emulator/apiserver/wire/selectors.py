"""Label and field selectors of lists and watches."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from kube_emulator.apiserver.kinds import errors
from kube_emulator.apiserver.kinds.catalogue import Kind, Object

Predicate = Callable[[Object], bool]

_SET = re.compile(r"^(\S+)\s+(in|notin)\s*\(([^)]*)\)$")
_EQUAL = re.compile(r"^([^\s=!]+)\s*(==|=|!=)\s*(.*)$")
_LABEL_EQUAL = re.compile(r"^([\w./-]+)\s*(==|=|!=)\s*([\w.-]*)$")
_COMMA = re.compile(r",(?![^(]*\))")

_FIELDS: dict[str, tuple[str, ...]] = {
    "pods": (
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "status.phase",
        "status.podIP",
        "status.nominatedNodeName",
        "spec.hostNetwork",
    ),
    "nodes": ("spec.unschedulable",),
    "namespaces": ("status.phase",),
    "secrets": ("type",),
    "replicasets": ("status.replicas",),
    "events": (
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "source",
        "type",
    ),
}


def label_predicate(selector: str) -> Predicate | None:
    """Parse a label selector; None selects everything. Raises StatusError 400 if malformed."""
    if not selector.strip():
        return None
    tests = [_requirement(part.strip(), selector) for part in _COMMA.split(selector)]

    def matches(obj: Object) -> bool:
        labels = obj["metadata"].get("labels") or {}
        return all(test(labels) for test in tests)

    return matches


def _requirement(text: str, selector: str) -> Callable[[dict[str, str]], bool]:
    if found := _SET.match(text):
        key, operator, values = found.groups()
        allowed = {value.strip() for value in values.split(",")}
        if operator == "in":
            return lambda labels: labels.get(key) in allowed
        return lambda labels: labels.get(key) not in allowed
    if found := _LABEL_EQUAL.match(text):
        key, operator, value = found.groups()
        if operator == "!=":
            return lambda labels: labels.get(key) != value
        return lambda labels: labels.get(key) == value
    if text.startswith("!") and text[1:].strip():
        key = text[1:].strip()
        return lambda labels: key not in labels
    if not re.fullmatch(r"[\w./-]+", text):
        raise errors.bad_request(f"unable to parse requirement: {text!r} in {selector!r}")
    return lambda labels: text in labels


def field_predicate(kind: Kind, selector: str) -> Predicate | None:
    """Parse a field selector; None selects everything. Raises StatusError 400 if unsupported."""
    if not selector.strip():
        return None
    tests: list[Predicate] = []
    for part in selector.split(","):
        found = _EQUAL.match(part.strip())
        if not found:
            raise errors.bad_request(f"invalid selector: '{part}'; can't understand '{part}'")
        tests.append(_field_test(kind, *found.groups()))
    return lambda obj: all(test(obj) for test in tests)


def _field_test(kind: Kind, field: str, operator: str, value: str) -> Predicate:
    known = ("metadata.name", "metadata.namespace", *_selectable(kind))
    if field not in known:
        if kind.definition is None and kind.plural not in _FIELDS:
            only = ", ".join(f'"{name}"' for name in known)
            raise errors.bad_request(f'"{field}" is not a known field selector: only {only}')
        raise errors.bad_request(f"field label not supported: {field}")
    path = field.split(".")
    equal = operator != "!="
    return lambda obj: (_text(obj, path) == value) is equal


def _selectable(kind: Kind) -> tuple[str, ...]:
    if kind.definition is None:
        return _FIELDS.get(kind.plural, ())
    fields = kind.definition.get("selectableFields", [])
    return tuple(entry["jsonPath"].lstrip(".") for entry in fields)


def _text(obj: Object, path: list[str]) -> str:
    value: Any = obj
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def both(first: Predicate | None, second: Predicate | None) -> Predicate | None:
    if first is None or second is None:
        return first or second
    return lambda obj: first(obj) and second(obj)
