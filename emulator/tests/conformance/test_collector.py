"""Garbage collection by owner references: background, foreground, orphan."""

from __future__ import annotations

import pytest


def owned(name: str, owner: dict, blocks: bool = False) -> dict:
    reference = {
        "apiVersion": owner.get("apiVersion", "v1"),
        "kind": owner.get("kind", "ConfigMap"),
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "blockOwnerDeletion": blocks,
    }
    return {"metadata": {"name": name, "ownerReferences": [reference]}}


@pytest.fixture
def maps(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/configmaps"


async def make(api, path: str, body: dict) -> dict:
    made = await api.post(path, body)
    assert made.status == 201, made.body
    return made.body


def gone(api, path: str):
    async def check() -> bool:
        return (await api.get(path)).status == 404

    return check


async def test_dependents_go_after_their_owner(api, maps, eventually) -> None:
    owner = await make(api, maps, {"metadata": {"name": "owner"}})
    child = await make(api, maps, owned("child", owner))
    await make(api, maps, owned("grandchild", child))
    await make(api, maps, {"metadata": {"name": "bystander"}})
    await api.delete(f"{maps}/owner")
    await eventually(gone(api, f"{maps}/child"), "the child to go")
    await eventually(gone(api, f"{maps}/grandchild"), "the grandchild to go")
    assert (await api.get(f"{maps}/bystander")).status == 200


async def test_dependents_of_a_custom_resource_go(api, widgets, widget, maps, eventually) -> None:
    owner = await make(api, widgets, widget("owner"))
    await make(api, maps, owned("child", owner))
    await api.delete(f"{widgets}/owner")
    await eventually(gone(api, f"{maps}/child"), "the child to go", 90)


async def test_an_owner_is_known_by_its_uid(api, maps, eventually) -> None:
    stranger = {"metadata": {"name": "owner", "uid": "5d1bb16a-6b50-4c61-b7de-6c1d9be1b8c0"}}
    await make(api, maps, {"metadata": {"name": "owner"}})
    await make(api, maps, owned("child", stranger))
    await eventually(gone(api, f"{maps}/child"), "the child of another uid to go")
    assert (await api.get(f"{maps}/owner")).status == 200


async def test_one_living_owner_is_enough(api, maps, eventually) -> None:
    first = await make(api, maps, {"metadata": {"name": "first"}})
    second = await make(api, maps, {"metadata": {"name": "second"}})
    shared = owned("shared", first)
    shared["metadata"]["ownerReferences"] += owned("x", second)["metadata"]["ownerReferences"]
    await make(api, maps, shared)
    await make(api, maps, owned("single", first))
    await api.delete(f"{maps}/first")
    await eventually(gone(api, f"{maps}/single"), "the other dependent to go")
    assert (await api.get(f"{maps}/shared")).status == 200
    await api.delete(f"{maps}/second")
    await eventually(gone(api, f"{maps}/shared"), "the shared dependent to go")


async def test_foreground_deletion_waits_for_what_blocks(api, maps, eventually) -> None:
    owner = await make(api, maps, {"metadata": {"name": "owner"}})
    child = owned("child", owner, blocks=True)
    child["metadata"]["finalizers"] = ["example.com/hold"]
    await make(api, maps, child)
    await make(api, maps, owned("free", owner))
    answer = await api.delete(f"{maps}/owner", {"propagationPolicy": "Foreground"})
    assert answer.body["metadata"]["finalizers"] == ["foregroundDeletion"]

    async def marked() -> bool:
        return "deletionTimestamp" in (await api.get(f"{maps}/child")).body["metadata"]

    await eventually(marked, "the child to be deleted")
    await eventually(gone(api, f"{maps}/free"), "the other child to go")
    assert (await api.get(f"{maps}/owner")).status == 200
    await api.merge(f"{maps}/child", {"metadata": {"finalizers": None}})
    await eventually(gone(api, f"{maps}/owner"), "the owner to go")


async def test_foreground_deletion_goes_down_to_the_last(api, maps, eventually) -> None:
    owner = await make(api, maps, {"metadata": {"name": "owner"}})
    child = await make(api, maps, owned("child", owner, blocks=True))
    grandchild = owned("grandchild", child, blocks=True)
    grandchild["metadata"]["finalizers"] = ["example.com/hold"]
    await make(api, maps, grandchild)
    await api.delete(f"{maps}/owner", {"propagationPolicy": "Foreground"})

    async def marked() -> bool:
        return "deletionTimestamp" in (await api.get(f"{maps}/grandchild")).body["metadata"]

    await eventually(marked, "the grandchild to be deleted")
    waiting = (await api.get(f"{maps}/child")).body
    assert waiting["metadata"]["finalizers"] == ["foregroundDeletion"]
    assert (await api.get(f"{maps}/owner")).status == 200
    await api.merge(f"{maps}/grandchild", {"metadata": {"finalizers": None}})
    await eventually(gone(api, f"{maps}/owner"), "the owner to go")
    assert (await api.get(f"{maps}/child")).status == 404


async def test_orphans_stay_without_their_owner(api, maps, eventually) -> None:
    owner = await make(api, maps, {"metadata": {"name": "owner"}})
    await make(api, maps, owned("child", owner))
    answer = await api.delete(f"{maps}/owner", {"propagationPolicy": "Orphan"})
    assert answer.body["metadata"]["finalizers"] == ["orphan"]
    await eventually(gone(api, f"{maps}/owner"), "the owner to go")
    child = (await api.get(f"{maps}/child")).body
    assert "ownerReferences" not in child["metadata"]
