"""Evaluate `x-kubernetes-validations`: CEL rules that stand beside the fields they speak of.

Follows the Kubernetes documentation of validation rules: `self`, `oldSelf`, `message`,
`messageExpression`, `fieldPath`. Rules keep to standard CEL: none of the
functions that only Kubernetes adds is available here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import cel

from kube_schema.field_errors import FieldError, Json, Schema, child, invalid_value, list_key

_FAILURES = (KeyError, ValueError, TypeError, RuntimeError, ArithmeticError)
_OLD_SELF = re.compile(r"\boldSelf\b")
_WHOLE = re.compile(r"\b(self|oldSelf)\b(?!\.\w+\b(?!\s*\())")
_WORD = re.compile(r"\w+", re.ASCII)


def check_rules(schema: Schema, value: Json, old: Json | None, path: str = "") -> list[FieldError]:
    """Run every rule of the schema on `value`, depth first; `old` is its stored counterpart."""
    errors: list[FieldError] = []
    rules = schema.get("x-kubernetes-validations", ())
    if rules and not _all_hold(rules, value, old):
        verdicts = (_run(rule, value, old, path) for rule in rules)
        errors = [error for error in verdicts if error is not None]
    for sub, item, old_item, where in _children(schema, value, old, path):
        errors += check_rules(sub, item, old_item, where)
    return errors


def reads_old_self(rule: dict[str, Any]) -> bool:
    """Tell whether a rule is a transition rule, which runs on updates only."""
    return _OLD_SELF.search(rule["rule"]) is not None


@lru_cache(maxsize=1024)
def compile_rule(expression: str) -> cel.Program:
    """Compile one CEL expression; raises ValueError with the compiler's words."""
    return cel.compile(expression)


def _all_hold(rules: Sequence[dict[str, Any]], value: Json, old: Json | None) -> bool:
    """Evaluate the rules that apply as one, since handing a value to CEL costs more than most
    rules do; if that does not say that they hold, each has to say it for itself."""
    given = [rule["rule"] for rule in rules if old is not None or not reads_old_self(rule)]
    if not given:
        return True
    expression = _conjunction(*given)
    variables = {"self": _read(expression, value)}
    if old is not None:
        variables["oldSelf"] = _read(expression, old)
    try:
        return compile_rule(expression).execute(variables) is True
    except _FAILURES:
        return False


def _read(expression: str, value: Json) -> Json:
    """Return what an expression may read of a value: a field is read by its name alone, unless the
    value is taken as a whole."""
    names = _names(expression)
    if names is None or not isinstance(value, dict):
        return value
    return {name: item for name, item in value.items() if name in names}


@lru_cache(maxsize=1024)
def _names(expression: str) -> frozenset[str] | None:
    """Return every word of an expression; None if `self` stands in it but for one of its fields."""
    if _WHOLE.search(expression):
        return None
    return frozenset(_WORD.findall(expression))


@lru_cache(maxsize=1024)
def _conjunction(*rules: str) -> str:
    return " && ".join(f"({rule})" for rule in rules)


def _run(rule: dict[str, Any], value: Json, old: Json | None, path: str) -> FieldError | None:
    variables = {"self": value}
    if reads_old_self(rule):
        if old is None:
            return None
        variables["oldSelf"] = old
    try:
        holds = compile_rule(rule["rule"]).execute(variables)
    except _FAILURES as error:
        detail = f"{error} evaluating rule: {_message(rule, variables)}"
        return FieldError(path, invalid_value(value, detail))
    if holds is True:
        return None
    where = path + rule.get("fieldPath", "") if path else rule.get("fieldPath", "").lstrip(".")
    detail = _message(rule, variables)
    hidden = isinstance(value, dict | list)
    return FieldError(where, f"Invalid value: {detail}" if hidden else invalid_value(value, detail))


def _message(rule: dict[str, Any], variables: dict[str, Json]) -> str:
    if "messageExpression" in rule:
        try:
            text = compile_rule(rule["messageExpression"]).execute(variables)
        except (KeyError, ValueError, TypeError, RuntimeError):
            text = None
        if isinstance(text, str) and text.strip():
            return text
    return str(rule.get("message") or f"failed rule: {rule['rule']}")


def _children(
    schema: Schema, value: Json, old: Json | None, path: str
) -> Iterator[tuple[Schema, Json, Json | None, str]]:
    if isinstance(value, list):
        items = schema.get("items", {})
        known = {list_key(schema, item): item for item in old} if isinstance(old, list) else {}
        by_key = schema.get("x-kubernetes-list-type") == "map"
        for i, item in enumerate(value):
            old_item = known.get(list_key(schema, item)) if by_key else None
            yield items, item, old_item, child(path, i)
    elif isinstance(value, dict):
        properties = schema.get("properties", {})
        additional = schema.get("additionalProperties")
        for key, item in value.items():
            sub = properties.get(key, additional)
            if isinstance(sub, dict):
                old_item = old.get(key) if isinstance(old, dict) else None
                yield sub, item, old_item, child(path, key)
