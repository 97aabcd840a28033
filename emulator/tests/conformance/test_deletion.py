"""Deletion: finalizers, preconditions, collections, pods' grace, namespaces."""

from __future__ import annotations

import pytest

POD = {
    "metadata": {"name": "p"},
    "spec": {"containers": [{"name": "c", "image": "example.com/a:1"}]},
}


async def test_deletion_answers_with_a_status(api, widgets, widget) -> None:
    made = (await api.post(widgets, widget("a"))).body
    answer = await api.delete(f"{widgets}/a")
    assert answer.status == 200
    assert answer.body["status"] == "Success"
    assert answer.body["details"] == {
        "name": "a",
        "group": "conformance.example.com",
        "kind": "widgets",
        "uid": made["metadata"]["uid"],
    }
    assert (await api.delete(f"{widgets}/a")).status == 404


async def test_finalizers_hold_an_object(api, widgets, widget) -> None:
    body = widget("a")
    body["metadata"]["finalizers"] = ["example.com/one", "example.com/two"]
    made = (await api.post(widgets, body)).body
    marked = await api.delete(f"{widgets}/a")
    assert marked.status == 200
    meta = marked.body["metadata"]
    assert meta["deletionGracePeriodSeconds"] == 0
    assert meta["generation"] == made["metadata"]["generation"] + 1
    again = await api.delete(f"{widgets}/a")
    assert again.body["metadata"]["deletionTimestamp"] == meta["deletionTimestamp"]
    one = {"metadata": {"finalizers": ["example.com/two"]}}
    assert (await api.merge(f"{widgets}/a", one)).status == 200
    assert (await api.get(f"{widgets}/a")).status == 200
    last = await api.merge(f"{widgets}/a", {"metadata": {"finalizers": []}})
    assert last.status == 200
    assert (await api.get(f"{widgets}/a")).status == 404


async def test_no_finalizer_is_added_to_what_is_being_deleted(api, widgets, widget) -> None:
    body = widget("a")
    body["metadata"]["finalizers"] = ["example.com/one"]
    await api.post(widgets, body)
    await api.delete(f"{widgets}/a")
    more = {"metadata": {"finalizers": ["example.com/one", "example.com/late"]}}
    refused = await api.merge(f"{widgets}/a", more)
    assert refused.status == 422
    assert refused.body["details"]["causes"][0]["field"] == "metadata.finalizers"
    await api.merge(f"{widgets}/a", {"metadata": {"finalizers": None}})


async def test_preconditions(api, widgets, widget) -> None:
    made = (await api.post(widgets, widget("a"))).body
    for wrong in ({"uid": "other"}, {"resourceVersion": "1"}):
        refused = await api.delete(f"{widgets}/a", {"preconditions": wrong})
        assert (refused.status, refused.body["reason"]) == (409, "Conflict")
        assert "in the precondition" in refused.body["message"]
    right = {"uid": made["metadata"]["uid"]}
    assert (await api.delete(f"{widgets}/a", {"preconditions": right})).status == 200


async def test_an_unknown_policy_is_refused(api, widgets, widget) -> None:
    await api.post(widgets, widget("a"))
    assert (await api.delete(f"{widgets}/a", {"propagationPolicy": "Some"})).status == 422


async def test_a_collection_is_deleted_by_selector(api, widgets, widget) -> None:
    for name, label in (("a", "x"), ("b", "x"), ("c", "y")):
        body = widget(name)
        body["metadata"]["labels"] = {"l": label}
        await api.post(widgets, body)
    answer = await api.delete(widgets, labelSelector="l=x")
    assert answer.status == 200
    left = (await api.get(widgets)).body["items"]
    assert [o["metadata"]["name"] for o in left] == ["c"]
    assert (await api.delete(widgets)).status == 200
    assert (await api.get(widgets)).body["items"] == []


@pytest.fixture
def pods(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/pods"


async def bound(api, pods: str, name: str) -> dict:
    await api.post(pods, {**POD, "metadata": {"name": name}})
    target = {"metadata": {"name": name}, "target": {"kind": "Node", "name": "nowhere"}}
    assert (await api.post(f"{pods}/{name}/binding", target)).status == 201
    return (await api.get(f"{pods}/{name}")).body


async def test_a_pod_without_a_node_goes_at_once(api, pods) -> None:
    await api.post(pods, POD)
    assert (await api.delete(f"{pods}/p")).status == 200
    assert (await api.get(f"{pods}/p")).status == 404


async def test_a_pod_on_a_node_is_given_its_grace(api, pods) -> None:
    pod = await bound(api, pods, "p")
    assert pod["spec"]["nodeName"] == "nowhere"
    assert {"type": "PodScheduled", "status": "True"}.items() <= (
        pod["status"]["conditions"][0].items()
    )
    marked = (await api.delete(f"{pods}/p")).body
    assert marked["kind"] == "Pod"
    assert marked["metadata"]["deletionGracePeriodSeconds"] == 30
    assert "deletionTimestamp" in marked["metadata"]
    shorter = (await api.delete(f"{pods}/p", {"gracePeriodSeconds": 5})).body
    assert shorter["metadata"]["deletionGracePeriodSeconds"] == 5
    longer = (await api.delete(f"{pods}/p", {"gracePeriodSeconds": 60})).body
    assert longer["metadata"]["deletionGracePeriodSeconds"] == 5
    assert (await api.get(f"{pods}/p")).status == 200
    assert (await api.delete(f"{pods}/p", {"gracePeriodSeconds": 0})).status == 200
    assert (await api.get(f"{pods}/p")).status == 404


async def test_a_write_does_not_end_a_pods_grace(api, pods) -> None:
    await bound(api, pods, "p")
    await api.delete(f"{pods}/p")
    assert (await api.merge(f"{pods}/p", {"metadata": {"labels": {"x": "y"}}})).status == 200
    assert (await api.get(f"{pods}/p")).status == 200
    await api.delete(f"{pods}/p", {"gracePeriodSeconds": 0})


async def test_a_finished_pod_goes_at_once(api, pods) -> None:
    await bound(api, pods, "p")
    done = await api.strategic(f"{pods}/p/status", {"status": {"phase": "Succeeded"}})
    assert done.status == 200
    await api.delete(f"{pods}/p")
    assert (await api.get(f"{pods}/p")).status == 404


async def test_a_pod_is_bound_once(api, pods) -> None:
    await bound(api, pods, "p")
    target = {"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "elsewhere"}}
    again = await api.post(f"{pods}/p/binding", target)
    assert (again.status, again.body["reason"]) == (409, "Conflict")
    assert 'pod p is already assigned to node "nowhere"' in again.body["message"]
    await api.delete(f"{pods}/p", {"gracePeriodSeconds": 0})


async def test_a_foreground_deletion_marks_the_object(api, widgets, widget) -> None:
    await api.post(widgets, widget("a"))
    answer = (await api.delete(f"{widgets}/a", propagationPolicy="Foreground")).body
    assert answer["metadata"]["finalizers"] == ["foregroundDeletion"]


async def test_a_namespace_is_emptied(api, eventually) -> None:
    made = (await api.post("/api/v1/namespaces", {"metadata": {"generateName": "doomed-"}})).body
    assert made["status"] == {"phase": "Active"}
    assert made["spec"] == {"finalizers": ["kubernetes"]}
    name = made["metadata"]["name"]
    assert made["metadata"]["labels"] == {"kubernetes.io/metadata.name": name}
    path = f"/api/v1/namespaces/{name}"
    held = {"metadata": {"name": "held", "finalizers": ["example.com/hold"]}}
    await api.post(f"{path}/configmaps", held)
    await api.post(f"{path}/configmaps", {"metadata": {"name": "free"}})
    marked = await api.delete(path)
    assert marked.status == 200
    assert marked.body["status"]["phase"] == "Terminating"
    refused = await api.post(f"{path}/configmaps", {"metadata": {"name": "late"}})
    assert (refused.status, refused.body["reason"]) == (403, "Forbidden")
    assert "because it is being terminated" in refused.body["message"]

    async def emptied() -> bool:
        return (await api.get(f"{path}/configmaps/free")).status == 404

    await eventually(emptied, "the namespace's content to go")
    assert (await api.get(path)).status == 200
    await api.merge(f"{path}/configmaps/held", {"metadata": {"finalizers": None}})

    async def gone() -> bool:
        return (await api.get(path)).status == 404

    await eventually(gone, "the namespace to go")
