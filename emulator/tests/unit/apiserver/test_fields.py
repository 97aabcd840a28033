"""Field sets and server-side apply as pure functions."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kube_emulator.apiserver.kinds.catalogue import Kind
from kube_emulator.apiserver.kinds.errors import StatusError
from kube_emulator.apiserver.kinds.fields import (
    MEMBER,
    closure,
    containers,
    display,
    field_values,
    from_fields_v1,
    item_element,
    to_fields_v1,
)
from kube_emulator.apiserver.objects.apply import Manager, apply, track_update

KIND = Kind("g", "v1", "Thing", "things", definition={"name": "v1"})
NOW = "2026-01-01T00:00:00Z"
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "metadata": {"type": "object", "properties": {"name": {"type": "string"}}},
        "spec": {
            "type": "object",
            "properties": {
                "a": {"type": "integer"},
                "b": {"type": "integer"},
                "free": {"type": "object", "additionalProperties": {"type": "integer"}},
                "whole": {"type": "object", "x-kubernetes-map-type": "atomic"},
                "plain": {"type": "array", "items": {"type": "integer"}},
                "set": {
                    "type": "array",
                    "x-kubernetes-list-type": "set",
                    "items": {"type": "integer"},
                },
                "map": {
                    "type": "array",
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["k", "p"],
                    "items": {
                        "type": "object",
                        "properties": {
                            "k": {"type": "string"},
                            "p": {"type": "string", "default": "TCP"},
                            "v": {"type": "integer"},
                        },
                    },
                },
            },
        },
    },
}

COUNTS = st.integers(0, 2)
SPECS = st.fixed_dictionaries(
    {},
    optional={
        "a": COUNTS,
        "b": COUNTS,
        "free": st.dictionaries(st.sampled_from("xyz"), COUNTS, min_size=1),
        "whole": st.dictionaries(st.sampled_from("xyz"), COUNTS),
        "plain": st.lists(COUNTS, max_size=3),
        "set": st.lists(COUNTS, min_size=1, max_size=3, unique=True),
        "map": st.lists(
            st.fixed_dictionaries({"k": st.sampled_from("xyz")}, optional={"v": COUNTS}),
            min_size=1,
            max_size=3,
            unique_by=lambda item: item["k"],
        ),
    },
).filter(bool)


def config(spec: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"name": "n"}, "spec": spec}


def applied(live: dict[str, Any], spec: dict[str, Any], manager: str = "m", force: bool = False):
    who = Manager(manager, "Apply", "g/v1")
    return apply(SCHEMA, KIND, live, config(spec), who, force, NOW)


def fields_of(obj: dict[str, Any], manager: str) -> frozenset[tuple[str, ...]]:
    for entry in obj["metadata"].get("managedFields", []):
        if entry["manager"] == manager:
            return from_fields_v1(entry["fieldsV1"])
    return frozenset()


@given(SPECS)
def test_fields_v1_round_trips(spec: dict[str, Any]) -> None:
    fields = frozenset(field_values(SCHEMA, config(spec)))
    assert from_fields_v1(to_fields_v1(fields)) == fields


def test_what_is_a_managed_path() -> None:
    spec = {
        "a": 1,
        "free": {"x": 1},
        "whole": {"x": 1},
        "plain": [1],
        "set": [7],
        "map": [{"k": "q", "v": 2}],
    }
    found = field_values(SCHEMA["properties"]["spec"], spec)
    item = 'k:{"k":"q","p":"TCP"}'
    assert found == {
        ("f:a",): 1,
        ("f:free", "f:x"): 1,
        ("f:whole",): {"x": 1},
        ("f:plain",): [1],
        ("f:set", "v:7"): MEMBER,
        ("f:map", item): MEMBER,
        ("f:map", item, "f:k"): "q",
        ("f:map", item, "f:v"): 2,
    }
    assert set(containers(SCHEMA["properties"]["spec"], spec)) == {
        ("f:free",),
        ("f:set",),
        ("f:map",),
        ("f:map", item),
    }


def test_an_empty_map_is_managed_itself() -> None:
    assert field_values(SCHEMA, {"spec": {"free": {}}}) == {("f:spec", "f:free"): MEMBER}


def test_display() -> None:
    path = ("f:spec", 'k:{"containerPort":80,"protocol":"TCP"}', "f:x", 'v:"y"')
    assert display(path) == '.spec[containerPort=80,protocol="TCP"].x[="y"]'


def test_closure_has_every_enclosing_path() -> None:
    assert closure(frozenset([("a", "b", "c")])) == {("a",), ("a", "b"), ("a", "b", "c")}


def test_keys_of_an_item_use_the_schemas_default() -> None:
    schema = SCHEMA["properties"]["spec"]["properties"]["map"]
    assert item_element(schema, {"k": "x", "p": "UDP"}) == 'k:{"k":"x","p":"UDP"}'
    assert item_element(schema, {"k": "x"}) == 'k:{"k":"x","p":"TCP"}'


@given(SPECS)
def test_applying_twice_changes_nothing(spec: dict[str, Any]) -> None:
    once = applied({}, spec)
    assert applied(once, spec) == once


@given(SPECS, SPECS)
def test_a_sole_manager_gets_exactly_what_it_applies(
    first: dict[str, Any], second: dict[str, Any]
) -> None:
    live = applied({}, first)
    after = applied(live, second)
    wanted = field_values(SCHEMA, config(second))
    have = field_values(SCHEMA, {k: v for k, v in after.items() if k != "metadata"})
    assert have == {p: v for p, v in wanted.items() if p[0] != "f:metadata"}


@given(SPECS, SPECS)
def test_two_managers_conflict_exactly_over_differing_values(
    first: dict[str, Any], second: dict[str, Any]
) -> None:
    live = applied({}, first, "one")
    mine, theirs = field_values(SCHEMA, config(first)), field_values(SCHEMA, config(second))
    differing = {p for p in mine.keys() & theirs.keys() if mine[p] != theirs[p]}
    if not differing:
        assert fields_of(applied(live, second, "two"), "one") == fields_of(live, "one")
        return
    with pytest.raises(StatusError) as refused:
        applied(live, second, "two")
    named = {cause["field"] for cause in refused.value.details["causes"]}
    assert named == {display(path) for path in differing}


@given(SPECS, SPECS)
def test_force_leaves_one_owner_of_each_differing_value(
    first: dict[str, Any], second: dict[str, Any]
) -> None:
    after = applied(applied({}, first, "one"), second, "two", force=True)
    wanted = field_values(SCHEMA, config(second))
    have = field_values(SCHEMA, after)
    assert all(have[p] == v for p, v in wanted.items() if p[0] == "f:spec")
    for path in fields_of(after, "one") & fields_of(after, "two"):
        assert field_values(SCHEMA, config(first))[path] == wanted[path]


@given(SPECS, SPECS)
def test_an_update_owns_what_it_changes(before: dict[str, Any], after: dict[str, Any]) -> None:
    live = applied({}, before, "one")
    new = {**config(after)}
    who = Manager("two", "Update", "g/v1")
    managed = track_update(SCHEMA, KIND, live, new, who, NOW)
    old_values, values = field_values(SCHEMA, config(before)), field_values(SCHEMA, new)
    changed = {p for p, v in values.items() if old_values.get(p) != v and p[0] == "f:spec"}
    obj = {"metadata": {"managedFields": managed}}
    assert changed <= fields_of(obj, "two")
    assert not fields_of(obj, "one") & changed
    assert fields_of(obj, "one") <= values.keys()


def test_filling_an_empty_map_leaves_it_to_its_owner() -> None:
    live = applied({}, {}, "one")
    after = applied(live, {"free": {"x": 1}}, "two")
    assert fields_of(after, "one") == {("f:spec",)}
    emptied = track_update(SCHEMA, KIND, after, config({"free": {}}), UPDATER, NOW)
    assert not fields_of({"metadata": {"managedFields": emptied}}, "three")


UPDATER = Manager("three", "Update", "g/v1")


def test_a_booleans_change_is_seen() -> None:
    live = applied({}, {"a": 1}, "one")
    with pytest.raises(StatusError):
        applied(live, {"a": True}, "two")


def test_managers_of_updates_are_shown_with_version_and_time() -> None:
    update = Manager("kubectl", "Update", "g/v1", "status")
    assert update.shown(NOW) == f'"kubectl" with subresource "status" using g/v1 at {NOW}'
    assert update.shown(None) == '"kubectl" with subresource "status" using g/v1'
    assert Manager("a", "Apply", "g/v1").shown(NOW) == '"a"'


def test_an_applier_is_one_manager_at_every_version() -> None:
    one = Manager("a", "Apply", "g/v1")
    assert one.same(Manager("a", "Apply", "g/v2"))
    assert not one.same(Manager("a", "Update", "g/v1"))
    assert not one.same(Manager("a", "Apply", "g/v1", "status"))
    assert not Manager("a", "Update", "g/v1").same(Manager("a", "Update", "g/v2"))
