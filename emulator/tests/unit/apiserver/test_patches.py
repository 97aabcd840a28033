"""Patches as pure functions, where the conformance suite does not reach."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kube_emulator.apiserver.kinds.errors import StatusError
from kube_emulator.apiserver.wire.patches import json_patch, merge_patch, strategic_merge_patch

LIST = {
    "type": "array",
    "x-kubernetes-patch-strategy": "merge",
    "x-kubernetes-patch-merge-key": "k",
    "items": {"type": "object", "properties": {"in": {"type": "object"}}},
}
SCHEMA: dict[str, Any] = {
    "properties": {
        "list": LIST,
        "names": {"type": "array", "x-kubernetes-patch-strategy": "merge"},
        "whole": {"type": "array"},
        "retained": {"type": "object"},
    }
}


def strategic(target: Any, patch: Any) -> Any:
    return strategic_merge_patch(SCHEMA, target, patch)


MERGES = {
    "an item is merged by its key": (
        {"list": [{"k": 1, "a": 1}, {"k": 2}]},
        {"list": [{"k": 1, "b": 2}]},
        {"list": [{"k": 1, "a": 1, "b": 2}, {"k": 2}]},
    ),
    "a new item is appended": (
        {"list": [{"k": 1}]},
        {"list": [{"k": 2}]},
        {"list": [{"k": 1}, {"k": 2}]},
    ),
    "an item is deleted": (
        {"list": [{"k": 1}, {"k": 2}]},
        {"list": [{"k": 1, "$patch": "delete"}]},
        {"list": [{"k": 2}]},
    ),
    "a list is replaced": (
        {"list": [{"k": 1}]},
        {"list": [{"$patch": "replace"}, {"k": 3}]},
        {"list": [{"k": 3}]},
    ),
    "primitives are united": ({"names": ["a"]}, {"names": ["a", "b"]}, {"names": ["a", "b"]}),
    "primitives are removed": (
        {"names": ["a", "b"]},
        {"$deleteFromPrimitiveList/names": ["a"]},
        {"names": ["b"]},
    ),
    "an order of primitives": (
        {"names": ["a", "b"]},
        {"$setElementOrder/names": ["b", "a"]},
        {"names": ["b", "a"]},
    ),
    "items without a place in the order come last": (
        {"list": [{"k": 1}, {"k": 2}, {"k": 3}]},
        {"$setElementOrder/list": [{"k": 3}, {"k": 2}]},
        {"list": [{"k": 3}, {"k": 2}, {"k": 1}]},
    ),
    "other lists are replaced": ({"whole": [1, 2]}, {"whole": [3]}, {"whole": [3]}),
    "null removes": ({"x": 1, "y": 2}, {"x": None}, {"y": 2}),
    "only some keys are retained": (
        {"retained": {"a": 1, "b": 2}},
        {"retained": {"$retainKeys": ["b", "c"], "c": 3}},
        {"retained": {"b": 2, "c": 3}},
    ),
    "a map is replaced": (
        {"retained": {"a": 1}},
        {"retained": {"$patch": "replace", "b": 2}},
        {"retained": {"b": 2}},
    ),
    "a map is emptied": (
        {"retained": {"a": 1}},
        {"retained": {"$patch": "delete"}},
        {"retained": {}},
    ),
    "a list that is not there yet": ({}, {"list": [{"k": 1}]}, {"list": [{"k": 1}]}),
}


@pytest.mark.parametrize("case", MERGES)
def test_strategic_merge(case: str) -> None:
    target, patch, expected = MERGES[case]
    before = repr(target)
    assert strategic(target, patch) == expected
    assert repr(target) == before


def test_items_without_their_key_are_refused() -> None:
    with pytest.raises(StatusError, match="does not contain declared merge key: k"):
        strategic({}, {"list": [{"a": 1}]})


VALUES = st.recursive(
    st.integers(0, 3), lambda inner: st.dictionaries(st.sampled_from("abc"), inner), max_leaves=6
)
OBJECTS = st.dictionaries(st.sampled_from("abc"), VALUES)


@given(OBJECTS, OBJECTS)
def test_merge_patch_is_idempotent_and_pure(target: Any, patch: Any) -> None:
    before = repr(target)
    once = merge_patch(target, patch)
    assert merge_patch(once, patch) == once
    assert repr(target) == before


@given(OBJECTS)
def test_a_patch_of_nulls_removes_everything(target: Any) -> None:
    assert merge_patch(target, dict.fromkeys(target)) == {}


def test_json_patch_leaves_its_target_alone() -> None:
    target = {"a": {"b": [1]}}
    assert json_patch(target, [{"op": "add", "path": "/a/b/-", "value": 2}]) == {"a": {"b": [1, 2]}}
    assert target == {"a": {"b": [1]}}


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "replace", "path": "/list/5", "value": 1},
        {"op": "replace", "path": "/none/x", "value": 1},
        {"op": "move", "from": "/none", "path": "/x"},
        {"path": "/x"},
    ],
)
def test_json_patches_that_do_not_apply(operation: Any) -> None:
    with pytest.raises(StatusError) as refused:
        json_patch({"list": [1]}, [operation])
    assert refused.value.code == 422
