"""The collector's graph: what each change marks for attention."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kube_emulator.client import CONFIG_MAPS
from kube_emulator.collector import Graph


def obj(uid: str, *owners: str, deleted: bool = False) -> dict[str, Any]:
    meta: dict[str, Any] = {"name": uid[0], "uid": uid, "namespace": "n"}
    if owners:
        meta["ownerReferences"] = [{"uid": o, "name": o, "kind": "X"} for o in owners]
    if deleted:
        meta["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    return {"metadata": meta}


class Watched(Graph):
    """A graph that says what the last change marked."""

    def marked(self, old: dict[str, Any] | None, new: dict[str, Any] | None) -> set[str]:
        self.dirty.clear()
        self.change(CONFIG_MAPS, old, new)
        return set(self.dirty)


def test_a_new_object_is_attended_to() -> None:
    graph = Watched()
    assert graph.marked(None, obj("a")) == {"a"}
    assert graph.items["a"][1] == obj("a")


def test_the_end_of_an_owner_concerns_its_dependents() -> None:
    graph = Watched()
    graph.marked(None, obj("owner"))
    graph.marked(None, obj("child", "owner"))
    graph.marked(None, obj("other"))
    assert graph.marked(obj("owner"), None) == {"child"}
    assert "owner" not in graph.items


def test_an_owner_that_waits_concerns_its_dependents() -> None:
    graph = Watched()
    graph.marked(None, obj("child", "owner"))
    assert graph.marked(None, obj("owner", deleted=True)) == {"owner", "child"}


def test_the_end_of_a_dependent_concerns_its_owner() -> None:
    graph = Watched()
    graph.marked(None, obj("owner", deleted=True))
    graph.marked(None, obj("child", "owner"))
    assert graph.marked(obj("child", "owner"), None) == {"owner"}
    assert graph.dependents == {}


def test_a_reference_that_is_taken_away() -> None:
    graph = Watched()
    graph.marked(None, obj("owner"))
    graph.marked(None, obj("child", "owner", "second"))
    assert graph.marked(obj("child", "owner", "second"), obj("child", "second")) == {
        "child",
        "owner",
    }
    assert set(graph.dependents) == {"second"}


def test_an_object_made_anew_under_the_same_name_is_another() -> None:
    graph = Watched()
    graph.marked(None, obj("owner-1"))
    graph.marked(None, obj("child", "owner-1"))
    assert graph.marked(obj("owner-1"), obj("owner-2")) == {"child", "owner-2"}
    assert "owner-1" not in graph.items


STATES = st.tuples(
    st.sampled_from("abcd"),
    st.booleans(),
    st.lists(st.sampled_from("abcd"), max_size=2, unique=True),
)


@given(st.lists(STATES, max_size=25))
def test_the_graph_is_what_the_objects_say(changes: list[tuple[str, bool, list[str]]]) -> None:
    graph = Graph()
    live: dict[str, dict[str, Any]] = {}
    for uid, present, owners in changes:
        new = obj(uid, *(o for o in owners if o != uid)) if present else None
        if new is None and uid not in live:
            continue
        graph.change(CONFIG_MAPS, live.get(uid), new)
        live.pop(uid, None)
        if new is not None:
            live[uid] = new
    expected: dict[str, set[str]] = {}
    for uid, item in live.items():
        for reference in item["metadata"].get("ownerReferences", []):
            expected.setdefault(reference["uid"], set()).add(uid)
    assert {k: set(v) for k, v in graph.dependents.items()} == expected
    assert {uid: item for uid, (_, item) in graph.items.items()} == live
