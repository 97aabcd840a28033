"""CEL rules: where they run, on what, and what they say."""

import pytest

from kube_schema.structural import validate

_INT = {"type": "integer"}


def _schema(node: dict) -> dict:
    return {"type": "object", "properties": {"spec": node}}


def _rule(text: str, **extra: object) -> dict:
    return {"rule": text, "message": "no", **extra}


def _ruled(*rules: dict, **properties: dict) -> dict:
    return {"type": "object", "properties": properties, "x-kubernetes-validations": list(rules)}


def test_a_rule_speaks_of_its_own_field_path() -> None:
    schema = _schema(_ruled(_rule("self.a < self.b", fieldPath=".a"), a=_INT, b=_INT))
    assert validate(schema, {"spec": {"a": 1, "b": 2}}) == []
    assert [str(e) for e in validate(schema, {"spec": {"a": 2, "b": 2}})] == [
        "spec.a: Invalid value: no"
    ]


def test_rules_run_on_every_list_item_and_map_value() -> None:
    item = {**_INT, "x-kubernetes-validations": [_rule("self > 0")]}
    schema = {
        "type": "object",
        "properties": {
            "list": {"type": "array", "items": item},
            "map": {"type": "object", "additionalProperties": item},
        },
    }
    errors = validate(schema, {"list": [1, 0], "map": {"k": -1}})
    assert [e.path for e in errors] == ["list[1]", "map.k"]


def test_transition_rules_run_on_updates_only() -> None:
    schema = _schema(_ruled(_rule("self.a == oldSelf.a"), a=_INT))
    assert validate(schema, {"spec": {"a": 2}}) == []
    assert validate(schema, {"spec": {"a": 2}}, {"spec": {"a": 2}}) == []
    assert len(validate(schema, {"spec": {"a": 2}}, {"spec": {"a": 1}})) == 1
    assert validate(schema, {"spec": {"a": 2}}, {}) == []


def test_old_items_of_map_lists_are_found_by_key() -> None:
    item = _ruled(_rule("self.v >= oldSelf.v"), name={"type": "string"}, v=_INT)
    node = {"type": "array", "items": item}
    keyed = {**node, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
    old = {"spec": [{"name": "a", "v": 5}, {"name": "b", "v": 1}]}
    new = {"spec": [{"name": "b", "v": 2}, {"name": "a", "v": 4}, {"name": "c", "v": 0}]}
    assert [e.path for e in validate(_schema(keyed), new, old)] == ["spec[1]"]
    assert validate(_schema(node), new, old) == []


def test_a_message_can_be_computed() -> None:
    rule = {"rule": "self.a < 3", "messageExpression": "'got ' + string(self.a)", "message": "no"}
    (error,) = validate(_schema(_ruled(rule, a=_INT)), {"spec": {"a": 7}})
    assert error.message == "Invalid value: got 7"


def test_a_rule_that_fails_to_evaluate_refuses() -> None:
    (error,) = validate(_schema(_ruled(_rule("self.b > 1"), a=_INT, b=_INT)), {"spec": {"a": 1}})
    assert error.path == "spec"
    assert "evaluating rule: no" in error.message


def test_rules_wait_until_the_shape_is_right() -> None:
    schema = _schema(_ruled(_rule("self.a < 3"), a=_INT))
    errors = validate(schema, {"spec": {"a": "7"}})
    assert [e.kind for e in errors] == ["FieldValueTypeInvalid", "FieldValueInvalid"]
    assert "some validation rules were not checked" in errors[1].message


@pytest.mark.parametrize(
    "rule", ["self.all(k, self[k] > 1)", "size(self) == 2", "self['a'] > 1", "self != {'b': 2}"]
)
def test_a_rule_may_take_a_value_as_a_whole(rule: str) -> None:
    schema = _schema({"type": "object", "additionalProperties": _INT})
    schema["properties"]["spec"]["x-kubernetes-validations"] = [_rule(rule)]
    assert validate(schema, {"spec": {"a": 2, "b": 2}}) == []
    assert len(validate(schema, {"spec": {"b": 2}}, {"spec": {}})) == (0 if "all" in rule else 1)


def test_fields_that_a_rule_does_not_name_change_nothing() -> None:
    schema = _schema(_ruled(_rule("self.a == oldSelf.a && !has(self.c)"), a=_INT, b=_INT, c=_INT))
    assert validate(schema, {"spec": {"a": 1, "b": 2}}, {"spec": {"a": 1, "b": 3}}) == []
    assert len(validate(schema, {"spec": {"a": 1, "c": 2}}, {"spec": {"a": 1}})) == 1
