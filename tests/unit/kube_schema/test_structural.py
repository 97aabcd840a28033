"""Pruning, defaulting and validation as an API server does them."""

import copy

import pytest

from kube_schema.structural import apply_defaults, knows, prune, validate

STRING = {"type": "string"}


def _object(properties: dict, **extra: object) -> dict:
    return {"type": "object", "properties": properties, **extra}


def test_prune_drops_unknown_fields_at_every_depth_and_names_them() -> None:
    schema = _object(
        {
            "spec": _object({"known": STRING, "list": {"type": "array", "items": _object({})}}),
            "map": {"type": "object", "additionalProperties": _object({"a": STRING})},
        }
    )
    value = {
        "kind": "K",
        "spec": {"known": "x", "extra": 1, "list": [{"b": 1}]},
        "map": {"k": {"a": "x", "c": 1}},
        "top": 1,
    }
    dropped = prune(schema, value)
    assert sorted(dropped) == ["map.k.c", "spec.extra", "spec.list[0].b", "top"]
    assert value == {"kind": "K", "spec": {"known": "x", "list": [{}]}, "map": {"k": {"a": "x"}}}


def test_prune_keeps_what_the_schema_preserves() -> None:
    schema = _object({"free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}})
    value = {"free": {"anything": {"goes": 1}}}
    assert prune(schema, value) == []
    assert value == {"free": {"anything": {"goes": 1}}}


_ONE = _object({"b": STRING})
_EVERY_SHAPE = _object(
    {
        "one": _ONE,
        "list": {"type": "array", "items": _ONE},
        "map": {"type": "object", "additionalProperties": _ONE},
        "any": {"type": "object", "additionalProperties": True},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "none": {"type": "object"},
    }
)


@pytest.mark.parametrize(
    ("value", "known"),
    [
        ({"kind": "K", "apiVersion": "v1", "metadata": {"x": 1}}, True),
        ({"top": 1}, False),
        ({"one": {"b": "x"}, "list": [{"b": "x"}, {}], "map": {"k": {"b": "x"}}}, True),
        ({"one": {"c": 1}}, False),
        ({"one": {"kind": "K"}}, False),
        ({"one": {"b": {"c": 1}}}, False),
        ({"list": [{"b": "x"}, {"c": 1}]}, False),
        ({"list": [{"metadata": {}}]}, False),
        ({"map": {"k": {"b": "x"}, "l": {"c": 1}}}, False),
        ({"any": {"k": {"c": 1}}, "free": {"k": {"c": 1}}}, True),
        ({"none": {}}, True),
        ({"none": {"k": None}}, False),
        ({"one": None, "list": None, "map": "x", "none": 1}, True),
        ([], True),
    ],
)
def test_a_schema_knows_a_value_of_which_nothing_is_pruned(value: object, known: bool) -> None:
    assert knows(_EVERY_SHAPE, value) is known
    assert (prune(_EVERY_SHAPE, copy.deepcopy(value)) == []) is known


def test_defaults_reach_into_defaulted_objects_lists_and_maps() -> None:
    inner = _object({"a": {"type": "integer", "default": 1}})
    schema = _object(
        {
            "made": {**inner, "default": {}},
            "absent": inner,
            "list": {"type": "array", "items": inner},
            "map": {"type": "object", "additionalProperties": inner},
        }
    )
    value: dict = {"list": [{}, {"a": 5}], "map": {"k": {}}}
    apply_defaults(schema, value)
    assert value == {"made": {"a": 1}, "list": [{"a": 1}, {"a": 5}], "map": {"k": {"a": 1}}}


def test_a_default_is_not_shared_between_objects() -> None:
    schema = _object({"l": {"type": "array", "items": STRING, "default": ["x"]}})
    first: dict = {}
    second: dict = {}
    apply_defaults(schema, first)
    first["l"].append("y")
    apply_defaults(schema, second)
    assert second == {"l": ["x"]}


def test_null_counts_as_absent_unless_nullable() -> None:
    schema = _object(
        {
            "a": {"type": "integer", "default": 1},
            "b": STRING,
            "c": {"type": "string", "nullable": True, "default": "x"},
        }
    )
    value = {"a": None, "b": None, "c": None}
    apply_defaults(schema, value)
    assert value == {"a": 1, "c": None}
    assert validate(schema, value) == []


@pytest.mark.parametrize(
    ("schema", "value", "expected"),
    [
        ({"type": "integer"}, True, 'must be of type integer: "boolean"'),
        ({"type": "integer"}, 1.0, 'must be of type integer: "number"'),
        ({"type": "string"}, None, 'must be of type string: "null"'),
        ({"type": "integer", "maximum": 3}, 4, "less than or equal to 3"),
        ({"type": "integer", "minimum": 3}, 2, "greater than or equal to 3"),
        ({"type": "string", "maxLength": 2}, "abc", "Too long: may not be more than 2 bytes"),
        ({"type": "string", "minLength": 2}, "a", "at least 2 chars long"),
        ({"type": "string", "pattern": "^[a-z]+$"}, "a\n", "should match"),
        ({"type": "string", "pattern": r"^\w+$"}, "é", "should match"),
        ({"type": "array", "items": STRING, "maxItems": 1}, ["a", "b"], "Too many: 2"),
        ({"type": "array", "items": STRING, "minItems": 1}, [], "at least 1 items"),
        ({"type": "object", "maxProperties": 1}, {"a": 1, "b": 1}, "Too many: 2"),
        ({"type": "string", "enum": ["A"]}, "B", 'Unsupported value: "B": supported values: "A"'),
        (
            {
                "anyOf": [{"type": "integer"}, {"type": "string"}],
                "x-kubernetes-int-or-string": True,
            },
            1.5,
            "must be of type integer or string",
        ),
    ],
)
def test_limits(schema: dict, value: object, expected: str) -> None:
    error = validate(_object({"x": schema}), {"x": value})[0]
    assert error.path == "x"
    assert expected in error.message


@pytest.mark.parametrize("value", ["abc", ""])
def test_of_a_string_with_a_wrong_length_no_more_is_said(value: str) -> None:
    limits = {"type": "string", "minLength": 1, "maxLength": 2, "pattern": "^[0-9]+$"}
    errors = validate(_object({"x": limits}), {"x": value})
    assert len([e for e in errors if e.path == "x"]) == 1
    assert "match" not in errors[0].message
    assert "should match" in validate(_object({"x": limits}), {"x": "a"})[0].message


def test_required_fields_are_named_below_their_object() -> None:
    schema = _object({"spec": _object({}, required=["a", "b"])})
    errors = validate(schema, {"spec": {"a": 1}})
    assert [(e.path, e.message) for e in errors if e.path] == [("spec.b", "Required value")]


def test_duplicates_in_sets_and_map_lists() -> None:
    schema = _object(
        {
            "set": {"type": "array", "items": STRING, "x-kubernetes-list-type": "set"},
            "map": {
                "type": "array",
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
                "items": _object({"name": STRING, "v": STRING}),
            },
            "atomic": {"type": "array", "items": STRING},
        }
    )
    value = {
        "set": ["a", "b", "a"],
        "map": [{"name": "a", "v": "1"}, {"name": "a", "v": "2"}],
        "atomic": ["a", "a"],
    }
    errors = validate(schema, value)
    assert [(e.path, e.message) for e in errors] == [
        ("map[1]", 'Duplicate value: {"name":"a"}'),
        ("set[2]", 'Duplicate value: "a"'),
    ]
    errors = validate(schema, {"map": [{"name": ["a"]}, {"name": {"a": None}}]})
    assert {e.path for e in errors} == {"map[0].name", "map[1].name", ""}
