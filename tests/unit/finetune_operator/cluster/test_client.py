"""Requests as a server sees them, and its answers as the reconciler takes them."""

import json
from collections.abc import AsyncIterator
from contextlib import suppress
from email.utils import format_datetime
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio.client.configuration import Configuration

from finetune_operator.cluster.api import ApiError, Listing, NotLeading, Unreachable
from finetune_operator.cluster.client import Cluster
from finetune_operator.cluster.sync import pages
from finetune_operator.job.resources import resources
from finetune_operator.plan.backends import BACKEND
from support.operator.values import NOW, at

Json = Any
RESOURCES = resources(BACKEND.kinds)


def named(name: str) -> Json:
    return {"metadata": {"name": name, "uid": f"uid-{name}"}}


class Server:
    """Answers with what a test has put in `answers`, in order; keeps what was asked."""

    def __init__(self) -> None:
        self.asked: list[web.Request] = []
        self.bodies: list[Json] = []
        self.answers: list[tuple[int, Json]] = []
        self.headers: dict[str, str] = {}

    async def handle(self, request: web.Request) -> web.Response:
        self.asked.append(request)
        text = await request.text()
        self.bodies.append(json.loads(text) if text else None)
        code, body = self.answers.pop(0)
        if isinstance(body, str):
            return web.Response(status=code, text=body, headers=self.headers)
        return web.json_response(body, status=code, headers=self.headers)


@pytest.fixture
async def server() -> Server:
    return Server()


@pytest.fixture
async def answers() -> list[tuple[str, str, int]]:
    return []


@pytest.fixture
async def cluster(server: Server, answers: list[tuple[str, str, int]]) -> AsyncIterator[Cluster]:
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", server.handle)
    async with TestServer(app) as running:
        configuration = Configuration()
        configuration.retries = None
        configuration.host = str(running.make_url(""))
        configuration.api_key = {"BearerToken": "secret-token"}
        configuration.api_key_prefix = {"BearerToken": "Bearer"}
        made = Cluster(configuration, RESOURCES)
        made.observer = lambda *told: answers.append(told)
        yield made
        await made.close()


def status(code: int, reason: str, message: str = "no") -> tuple[int, Json]:
    return code, {"kind": "Status", "reason": reason, "message": message}


NEWEST = {"uid": "u1", "resourceVersion": "7"}
LEASE = {
    "apiVersion": "coordination.k8s.io/v1",
    "kind": "Lease",
    "metadata": {"name": "bot-a1", "namespace": "team"},
}


async def test_a_list_is_read_page_by_page(server: Server, cluster: Cluster) -> None:
    server.answers = [
        (200, {"metadata": {"resourceVersion": "7", "continue": "next"}, "items": [named("a")]}),
        (200, {"metadata": {"resourceVersion": "7"}, "items": [named("b")]}),
    ]
    begun, ended = [page async for page in pages(cluster, "Pod", "team", "x=y")]
    assert begun == Listing(({"apiVersion": "v1", "kind": "Pod", **named("a")},), "7", "next")
    assert ended == Listing(({"apiVersion": "v1", "kind": "Pod", **named("b")},), "7")
    first, second = server.asked
    assert first.path == "/api/v1/namespaces/team/pods"
    assert dict(first.query) == {"limit": "500", "labelSelector": "x=y"}
    assert dict(second.query) == {**first.query, "continue": "next"}
    assert first.headers["Authorization"] == "Bearer secret-token"


async def test_all_namespaces_are_listed_at_once(server: Server, cluster: Cluster) -> None:
    server.answers = [(200, {"metadata": {"resourceVersion": "7"}, "items": []})]
    await cluster.list_objects("FineTuneJob", None, "")
    (asked,) = server.asked
    assert asked.path == "/apis/finetune.dev/v1alpha1/finetunejobs"
    assert "labelSelector" not in asked.query


async def test_create_apply_and_delete(server: Server, cluster: Cluster) -> None:
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
    server: Server, cluster: Cluster
) -> None:
    server.answers = [(200, {})]
    await cluster.delete("Pod", "team", "bot-rewards", "u1", at_once=True)
    assert server.bodies[0]["gracePeriodSeconds"] == 0
    assert server.bodies[0]["preconditions"] == {"uid": "u1"}


@pytest.mark.parametrize("code", [404, 409])
async def test_what_is_gone_or_another_need_not_be_deleted(
    server: Server, cluster: Cluster, code: int
) -> None:
    server.answers = [status(code, "Whatever")]
    await cluster.delete("Lease", "team", "bot-a1", "u1")


async def test_a_status_is_patched_under_a_precondition(server: Server, cluster: Cluster) -> None:
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


async def test_events_are_asked_for_by_object(server: Server, cluster: Cluster) -> None:
    server.answers = [(200, {"items": [named("e")]})]
    assert await cluster.events_of("team", "u1") == [named("e")]
    assert server.asked[0].query["fieldSelector"] == "involvedObject.uid=u1"


async def test_of_very_many_events_some_are_read(server: Server, cluster: Cluster) -> None:
    page = {"metadata": {"continue": "next"}, "items": [named("e")] * 50}
    server.answers = [(200, page)] * 11
    assert len(await cluster.events_of("team", "u1")) == 500
    assert {asked.query["limit"] for asked in server.asked} == {"50"}
    assert [asked.query.get("continue") for asked in server.asked] == [None, *["next"] * 9]


NO_LISTS: list[Json] = [
    {},
    {"items": "x"},
    {"items": ["x"]},
    {"items": [{}]},
    {"items": [{"metadata": {"name": "a"}}]},
    {"items": [{"metadata": "x"}, named("a")]},
    [],
    "<html>",
    "null",
    "[" * 5000,
]


@pytest.mark.parametrize("answer", NO_LISTS)
async def test_what_is_no_list_is_no_answer(server: Server, cluster: Cluster, answer: Json) -> None:
    server.answers = [(200, answer)] * 2
    with pytest.raises(Unreachable):
        await cluster.list_objects("Pod", "team", "")
    with pytest.raises(Unreachable):
        await cluster.events_of("team", "u1")


async def test_an_empty_list_may_be_null(server: Server, cluster: Cluster) -> None:
    server.answers = [(200, {"metadata": {"resourceVersion": "7"}, "items": None})]
    assert (await cluster.list_objects("Pod", "team", "")).items == ()


@pytest.mark.parametrize("part", [None, 7, ["x"], {"a": {}}, True])
async def test_a_refusal_may_be_of_any_form(server: Server, cluster: Cluster, part: Json) -> None:
    server.answers = [(500, {"reason": part, "message": part}), (503, part)]
    for code in (500, 503):
        with pytest.raises(ApiError) as refused:
            await cluster.get("Pod", "team", "p")
        assert (refused.value.code, refused.value.reason) == (code, "")


@pytest.mark.parametrize(("text", "logged"), [("s", True), ("", False)])
async def test_of_a_log_one_recent_byte_is_asked_for(
    server: Server, cluster: Cluster, text: str, logged: bool
) -> None:
    server.answers = [(200, text)]
    assert await cluster.has_logged("team", "bot-a1-master-0", "pytorch", 600) is logged
    (asked,) = server.asked
    assert (asked.method, asked.path) == ("GET", "/api/v1/namespaces/team/pods/bot-a1-master-0/log")
    assert dict(asked.query) == {"container": "pytorch", "sinceSeconds": "600", "limitBytes": "1"}
    assert asked.headers["Accept"] == "*/*", "it is no JSON"


DEEP = "[" * 200_000


@pytest.mark.parametrize("text", ["<html>", DEEP], ids=["a proxy's page", "too deep"])
async def test_an_answer_that_can_not_be_read_is_none(
    server: Server, cluster: Cluster, text: str
) -> None:
    server.answers = [(200, text), (503, text)]
    with pytest.raises(Unreachable, match="no JSON that can be read"):
        await cluster.get("Lease", "team", "bot-a1")
    with pytest.raises(ApiError, match="503"):
        await cluster.create(LEASE)


async def test_no_object_is_none_and_other_refusals_are_errors(
    server: Server, cluster: Cluster
) -> None:
    server.answers = [status(404, "NotFound"), status(403, "Forbidden", "you may not")]
    assert await cluster.get("Lease", "team", "bot-a1") is None
    with pytest.raises(ApiError) as error:
        await cluster.get("Lease", "team", "bot-a1")
    assert (error.value.code, error.value.reason) == (403, "Forbidden")
    assert error.value.message == "you may not"


@pytest.mark.parametrize("text", ["404 page not found\n", "[]"])
async def test_an_answer_that_is_no_status(server: Server, cluster: Cluster, text: str) -> None:
    server.answers = [(404, text)]
    with pytest.raises(ApiError) as error:
        await cluster.create(LEASE)
    assert (error.value.code, error.value.reason) == (404, "")
    assert error.value.message == text.strip()


async def test_a_server_that_is_away_is_unreachable() -> None:
    configuration = Configuration()
    configuration.host = "http://127.0.0.1:1"
    configuration.retries = None
    cluster = Cluster(configuration, RESOURCES)
    with pytest.raises(Unreachable):
        await cluster.get("Lease", "team", "bot-a1")
    await cluster.close()


async def test_every_answer_is_counted(
    server: Server, cluster: Cluster, answers: list[tuple[str, str, int]]
) -> None:
    server.answers = [(200, LEASE), status(404, "NotFound")]
    await cluster.get("Lease", "team", "bot-a1")
    await cluster.get("Lease", "team", "bot-a1")
    assert answers == [("get", "Lease", 200), ("get", "Lease", 404)]


async def test_a_webhooks_words_are_bounded_and_on_one_line(
    server: Server, cluster: Cluster
) -> None:
    server.answers = [status(422, "In\nvalid", "no\x1b[2J" + "x" * 9_000)]
    with pytest.raises(ApiError) as refused:
        await cluster.create(LEASE)
    assert refused.value.reason == "In valid"
    assert refused.value.message.startswith("no\\x1b[2Jxxx")
    assert len(refused.value.message) == 4096


async def test_a_whole_object_is_replaced_where_it_is_the_newest(
    server: Server, cluster: Cluster
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
    server: Server, cluster: Cluster
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
    server: Server, cluster: Cluster
) -> None:
    cluster.may_write = lambda: False
    apart = cluster.apart(0.05)
    server.answers = [(200, LEASE)]
    await apart.replace(LEASE)
    await apart.close()
    assert server.asked[0].headers["Authorization"] == "Bearer secret-token"


async def test_every_client_hears_what_time_it_is_at_the_server(
    server: Server, cluster: Cluster
) -> None:
    cluster.clock.own = lambda: NOW
    apart = cluster.apart(30)
    for client, seconds in ((cluster, 900), (apart, -900)):
        server.headers = {"Date": format_datetime(at(seconds), usegmt=True)}
        server.answers = [(200, LEASE)]
        await client.get("Lease", "team", "bot-a1")
        assert cluster.clock.now() == at(seconds)
    await apart.close()


@pytest.mark.parametrize(("code", "headers"), [(502, {}), (200, {"Age": "900"})])
async def test_what_may_be_a_proxys_tells_no_time(
    code: int, headers: dict[str, str], server: Server, cluster: Cluster
) -> None:
    cluster.clock.own = lambda: NOW
    server.headers = {"Date": format_datetime(at(900), usegmt=True), **headers}
    server.answers = [(code, LEASE)]
    with suppress(ApiError):
        await cluster.get("Lease", "team", "bot-a1")
    assert cluster.clock.now() == NOW


async def test_requests_go_to_the_server_itself_as_the_watches_do(
    server: Server, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    server.answers = [(200, LEASE)]
    assert await cluster.get("Lease", "team", "bot-a1") == LEASE
