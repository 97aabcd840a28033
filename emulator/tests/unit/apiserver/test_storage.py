"""Versions, history, and that no watch misses or reorders a change."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kube_emulator.apiserver.objects import storage
from kube_emulator.apiserver.objects.storage import Store, TooOld


def obj(name: str, namespace: str = "ns", **fields: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": namespace}, **fields}


async def drain(subscription: storage.Subscription, count: int) -> list[tuple[str, str]]:
    changes = [await subscription.next() for _ in range(count)]
    return [(c.type, c.object["metadata"]["name"]) for c in changes if c]


def test_every_write_has_a_version_of_its_own() -> None:
    store = Store()
    versions = [store.put("r", obj("a"))["metadata"]["resourceVersion"]]
    versions.append(store.put("other", obj("b"))["metadata"]["resourceVersion"])
    versions.append(store.remove("r", "ns", "a")["metadata"]["resourceVersion"])
    assert versions == sorted(set(versions), key=int)
    assert int(versions[-1]) == store.version


def test_stored_objects_are_not_changed_by_later_writes() -> None:
    store = Store()
    first = store.put("r", obj("a", size=1))
    version = first["metadata"]["resourceVersion"]
    store.put("r", obj("a", size=2))
    store.remove("r", "ns", "a")
    assert (first["size"], first["metadata"]["resourceVersion"]) == (1, version)


def test_lists_are_ordered_and_by_namespace() -> None:
    store = Store()
    for namespace, name in (("b", "x"), ("a", "z"), ("a", "y")):
        store.put("r", obj(name, namespace))
    keys = [(o["metadata"]["namespace"], o["metadata"]["name"]) for o in store.list("r")]
    assert keys == [("a", "y"), ("a", "z"), ("b", "x")]
    assert [o["metadata"]["name"] for o in store.list("r", "b")] == ["x"]


async def test_a_subscription_replays_and_follows() -> None:
    store = Store()
    since = int(store.put("r", obj("a"))["metadata"]["resourceVersion"])
    store.put("r", obj("b"))
    subscription = store.subscribe("r", since)
    store.put("r", obj("b"))
    store.remove("r", "ns", "a")
    assert await drain(subscription, 3) == [("ADDED", "b"), ("MODIFIED", "b"), ("DELETED", "a")]


async def test_history_is_bounded_and_says_so() -> None:
    store = Store(history=2)
    first = int(store.put("r", obj("a"))["metadata"]["resourceVersion"])
    for name in ("b", "c", "d"):
        store.put("r", obj(name))
    with pytest.raises(TooOld):
        store.subscribe("r", first)
    assert await drain(store.subscribe("r", first + 1), 2) == [("ADDED", "c"), ("ADDED", "d")]


def test_what_was_before_a_resource_was_known_is_too_old() -> None:
    store = Store()
    store.put("other", obj("a"))
    store.list("r")
    with pytest.raises(TooOld):
        store.subscribe("r", store.version - 1)
    store.subscribe("r", store.version)


async def test_a_watcher_that_does_not_read_is_cut_off() -> None:
    store = Store(queue=3)
    subscription = store.subscribe("r", store.version)
    for i in range(9):
        store.put("r", obj(f"o{i}"))
    seen = []
    while (change := await subscription.next()) is not None:
        seen.append(change.object["metadata"]["name"])
    assert seen == ["o0", "o1", "o2"]


async def test_a_dropped_resource_ends_its_watches() -> None:
    store = Store()
    store.put("r", obj("a"))
    subscription = store.subscribe("r", store.version)
    store.drop("r")
    assert await asyncio.wait_for(subscription.next(), 5) is None
    assert store.list("r") == []


async def test_an_ended_watch_gets_nothing_more() -> None:
    store = Store()
    subscription = store.subscribe("r", store.version)
    store.unsubscribe("r", subscription)
    store.put("r", obj("a"))
    subscription.close()
    assert await subscription.next() is None


def test_rewriting_is_no_write() -> None:
    store = Store()
    stored = store.put("r", obj("a"))
    version = store.version
    store.rewrite("r", lambda o: {**o, "new": True})
    assert store.version == version
    assert store.get("r", "ns", "a") == {**stored, "new": True}


WRITES = st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=30)


@given(writes=WRITES, cut=st.integers(0, 30))
def test_replaying_a_watch_from_anywhere_gives_the_state(
    writes: list[tuple[str, bool]], cut: int
) -> None:
    """List at some moment, then follow: the copy ends up equal to the store."""
    store = Store()
    copy: dict[str, str] = {}
    since = store.version
    for i, (name, keep) in enumerate(writes):
        if i == cut:
            copy = {
                o["metadata"]["name"]: o["metadata"]["resourceVersion"] for o in store.list("r")
            }
            since = store.version
        if keep:
            store.put("r", obj(name))
        elif store.get("r", "ns", name):
            store.remove("r", "ns", name)
    if cut >= len(writes):
        copy = {}

    async def follow() -> None:
        subscription = store.subscribe("r", since)
        subscription.close()
        while (change := await subscription.next()) is not None:
            meta = change.object["metadata"]
            if change.type == "DELETED":
                del copy[meta["name"]]
            else:
                copy[meta["name"]] = meta["resourceVersion"]

    asyncio.run(follow())
    now = {o["metadata"]["name"]: o["metadata"]["resourceVersion"] for o in store.list("r")}
    assert copy == now
