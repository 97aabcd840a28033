"""What a client asks of an API server."""

from typing import Any

import pytest

from finetune_operator.cluster.api import ApiError, Listing, NotLeading
from finetune_operator.cluster.client import Cluster
from finetune_operator.cluster.sync import pages
from support.services.api_server import LEASE, ApiServer, named, status

Json = Any
NEWEST = {"uid": "u1", "resourceVersion": "7"}


async def test_a_list_is_read_page_by_page(server: ApiServer, cluster: Cluster) -> None:
    server.answers = [
        (200, {"metadata": {"resourceVersion": "7", "continue": "next"}, "items": [named("a")]}),
        (200, {"metadata": {"resourceVersion": "7"}, "items": [named("b")]}),
    ]
    begun, ended = [page async for page in pages(cluster, "Pod", "team", "x=y")]
    assert begun == Listing(({"apiVersion": "v1", "kind": "Pod", **named("a")},), "7", "next")
    assert ended == Listing(({"apiVersion": "v1", "kind": "Pod", **named("b")},), "7")
    first, second = server.asked
    assert first.path == "/api/v1/namespaces/team/pods"
    assert dict(first.query) == {"limit": "200", "labelSelector": "x=y"}
    assert dict(second.query) == {**first.query, "continue": "next"}
    assert first.headers["Authorization"] == "Bearer secret-token"


async def test_all_namespaces_are_listed_at_once(server: ApiServer, cluster: Cluster) -> None:
    server.answers = [(200, {"metadata": {"resourceVersion": "7"}, "items": []})]
    await cluster.list_objects("FineTuneJob", None, "")
    (asked,) = server.asked
    assert asked.path == "/apis/finetune.dev/v1alpha1/finetunejobs"
    assert "labelSelector" not in asked.query


async def test_create_apply_and_delete(server: ApiServer, cluster: Cluster) -> None:
    server.answers = [(201, LEASE), (200, LEASE), (200, {})]
    await cluster.create(LEASE)
    await cluster.apply(LEASE)
    await cluster.delete("Lease", "team", "bot-a1", "u1")
    base = "/apis/coordination.k8s.io/v1/namespaces/team/leases"
    assert [(a.method, a.path) for a in server.asked] == [
        ("POST", base),
        ("PATCH", f"{base}/bot-a1"),
        ("DELETE", f"{base}/bot-a1"),
    ]
    post, apply, _ = server.asked
    assert post.query["fieldManager"] == "finetune-operator"
    assert dict(apply.query) == {"fieldManager": "finetune-operator", "force": "true"}
    assert apply.headers["Content-Type"] == "application/apply-patch+yaml"
    assert server.bodies[2]["preconditions"] == {"uid": "u1"}
    assert server.bodies[2]["propagationPolicy"] == "Background"
    assert "gracePeriodSeconds" not in server.bodies[2]


async def test_a_pod_can_be_removed_without_its_nodes_word(
    server: ApiServer, cluster: Cluster
) -> None:
    server.answers = [(200, {})]
    await cluster.delete("Pod", "team", "bot-rewards", "u1", at_once=True)
    assert server.bodies[0]["gracePeriodSeconds"] == 0
    assert server.bodies[0]["preconditions"] == {"uid": "u1"}


@pytest.mark.parametrize("code", [404, 409])
async def test_what_is_gone_or_another_need_not_be_deleted(
    server: ApiServer, cluster: Cluster, code: int
) -> None:
    server.answers = [status(code, "Whatever")]
    await cluster.delete("Lease", "team", "bot-a1", "u1")


async def test_a_status_is_patched_under_a_precondition(
    server: ApiServer, cluster: Cluster
) -> None:
    metadata = {"name": "bot", "namespace": "team", "uid": "u", "resourceVersion": "5"}
    server.answers = [(200, {})]
    old = {"gone": 1, "kept": 2, "inner": {"a": 1, "b": 2}}
    new = {"kept": 2, "inner": {"a": 1, "b": 3}, "list": [1]}
    await cluster.patch_status({"metadata": metadata, "status": old}, new)
    (asked,) = server.asked
    assert asked.path.endswith("/finetunejobs/bot/status")
    assert asked.headers["Content-Type"] == "application/merge-patch+json"
    assert server.bodies == [
        {
            "metadata": {"uid": "u", "resourceVersion": "5"},
            "status": {"gone": None, "inner": {"b": 3}, "list": [1]},
        }
    ]


async def test_events_are_asked_for_by_object(server: ApiServer, cluster: Cluster) -> None:
    server.answers = [(200, {"items": [named("e")]})]
    assert await cluster.events_of("team", "u1") == [named("e")]
    assert server.asked[0].query["fieldSelector"] == "involvedObject.uid=u1"


async def test_of_very_many_events_some_are_read(server: ApiServer, cluster: Cluster) -> None:
    page = {"metadata": {"continue": "next"}, "items": [named("e")] * 50}
    server.answers = [(200, page)] * 11
    assert len(await cluster.events_of("team", "u1")) == 500
    assert {asked.query["limit"] for asked in server.asked} == {"50"}
    assert [asked.query.get("continue") for asked in server.asked] == [None, *["next"] * 9]


@pytest.mark.parametrize(("text", "logged"), [("s", True), ("", False)])
async def test_of_a_log_one_recent_byte_is_asked_for(
    server: ApiServer, cluster: Cluster, text: str, logged: bool
) -> None:
    server.answers = [(200, text)]
    assert await cluster.has_logged("team", "bot-a1-master-0", "pytorch", 600) is logged
    (asked,) = server.asked
    assert (asked.method, asked.path) == ("GET", "/api/v1/namespaces/team/pods/bot-a1-master-0/log")
    assert dict(asked.query) == {"container": "pytorch", "sinceSeconds": "600", "limitBytes": "1"}
    assert asked.headers["Accept"] == "*/*", "it is no JSON"


async def test_a_whole_object_is_replaced_where_it_is_the_newest(
    server: ApiServer, cluster: Cluster
) -> None:
    body = {**LEASE, "metadata": {**LEASE["metadata"], "resourceVersion": "7"}}
    server.answers = [(200, body), status(409, "Conflict")]
    assert await cluster.replace(body) == body
    with pytest.raises(ApiError, match="Conflict"):
        await cluster.replace(body)
    asked = server.asked[0]
    assert (asked.method, asked.path.rpartition("/")[2]) == ("PUT", "bot-a1")
    assert server.bodies == [body, body]


async def test_who_may_not_write_reads_on_and_sends_nothing_else(
    server: ApiServer, cluster: Cluster
) -> None:
    cluster.may_write = lambda: False
    server.answers = [(200, LEASE)]
    assert await cluster.get("Lease", "team", "bot-a1") == LEASE
    job = {"kind": "FineTuneJob", "metadata": {"name": "bot", "namespace": "team", **NEWEST}}
    for write in (
        cluster.create(LEASE),
        cluster.apply(LEASE),
        cluster.replace(LEASE),
        cluster.delete("Lease", "team", "bot-a1", "u1"),
        cluster.patch_status(job, {}),
        cluster.patch_event("team", "e", {}),
    ):
        with pytest.raises(NotLeading):
            await write
    assert len(server.asked) == 1


async def test_a_client_apart_asks_for_itself_and_is_not_asked_whether_it_leads(
    server: ApiServer, cluster: Cluster
) -> None:
    cluster.may_write = lambda: False
    apart = cluster.apart(0.05)
    server.answers = [(200, LEASE)]
    await apart.replace(LEASE)
    await apart.close()
    assert server.asked[0].headers["Authorization"] == "Bearer secret-token"


async def test_requests_go_to_the_server_itself_as_the_watches_do(
    server: ApiServer, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    server.answers = [(200, LEASE)]
    assert await cluster.get("Lease", "team", "bot-a1") == LEASE
