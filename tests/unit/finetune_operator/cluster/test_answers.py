"""What is taken for what, of all that an API server may answer, or something before it."""

from contextlib import suppress
from email.utils import format_datetime
from typing import Any

import pytest
from kubernetes.aio.client.configuration import Configuration

from finetune_operator.cluster.api import ApiError, Unreachable
from finetune_operator.cluster.client import Cluster
from finetune_operator.job.resources import resources
from finetune_operator.plan.backends import BACKEND
from support.operator.values import NOW, at
from support.services.api_server import LEASE, ApiServer, named, status

Json = Any
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
async def test_what_is_no_list_is_no_answer(
    server: ApiServer, cluster: Cluster, answer: Json
) -> None:
    server.answers = [(200, answer)] * 2
    with pytest.raises(Unreachable):
        await cluster.list_objects("Pod", "team", "")
    with pytest.raises(Unreachable):
        await cluster.events_of("team", "u1")


async def test_an_empty_list_may_be_null(server: ApiServer, cluster: Cluster) -> None:
    server.answers = [(200, {"metadata": {"resourceVersion": "7"}, "items": None})]
    assert (await cluster.list_objects("Pod", "team", "")).items == ()


@pytest.mark.parametrize("part", [None, 7, ["x"], {"a": {}}, True])
async def test_a_refusal_may_be_of_any_form(
    server: ApiServer, cluster: Cluster, part: Json
) -> None:
    server.answers = [(500, {"reason": part, "message": part}), (503, part)]
    for code in (500, 503):
        with pytest.raises(ApiError) as refused:
            await cluster.get("Pod", "team", "p")
        assert (refused.value.code, refused.value.reason) == (code, "")


DEEP = "[" * 200_000


@pytest.mark.parametrize("text", ["<html>", DEEP], ids=["a proxy's page", "too deep"])
async def test_an_answer_that_can_not_be_read_is_none(
    server: ApiServer, cluster: Cluster, text: str
) -> None:
    server.answers = [(200, text), (503, text)]
    with pytest.raises(Unreachable, match="no JSON that can be read"):
        await cluster.get("Lease", "team", "bot-a1")
    with pytest.raises(ApiError, match="503"):
        await cluster.create(LEASE)


@pytest.mark.parametrize("answer", [{}, {"metadata": "x"}, {"metadata": {"name": "bot-a1"}}, []])
async def test_what_is_no_object_is_no_answer(
    server: ApiServer, cluster: Cluster, answer: Json
) -> None:
    server.answers = [(200, answer)]
    with pytest.raises(Unreachable, match="no object"):
        await cluster.get("Lease", "team", "bot-a1")


async def test_no_object_is_none_and_other_refusals_are_errors(
    server: ApiServer, cluster: Cluster
) -> None:
    server.answers = [status(404, "NotFound"), status(403, "Forbidden", "you may not")]
    assert await cluster.get("Lease", "team", "bot-a1") is None
    with pytest.raises(ApiError) as error:
        await cluster.get("Lease", "team", "bot-a1")
    assert (error.value.code, error.value.reason) == (403, "Forbidden")
    assert error.value.message == "you may not"


@pytest.mark.parametrize("text", ["404 page not found\n", "[]"])
async def test_an_answer_that_is_no_status(server: ApiServer, cluster: Cluster, text: str) -> None:
    server.answers = [(404, text)]
    with pytest.raises(ApiError) as error:
        await cluster.create(LEASE)
    assert (error.value.code, error.value.reason) == (404, "")
    assert error.value.message == text.strip()


async def test_a_server_that_is_away_is_unreachable() -> None:
    configuration = Configuration()
    configuration.host = "http://127.0.0.1:1"
    configuration.retries = None
    cluster = Cluster(configuration, resources(BACKEND.kinds))
    with pytest.raises(Unreachable):
        await cluster.get("Lease", "team", "bot-a1")
    await cluster.close()


async def test_every_answer_is_counted(
    server: ApiServer, cluster: Cluster, answers: list[tuple[str, str, int]]
) -> None:
    server.answers = [(200, LEASE), status(404, "NotFound")]
    await cluster.get("Lease", "team", "bot-a1")
    await cluster.get("Lease", "team", "bot-a1")
    assert answers == [("get", "Lease", 200), ("get", "Lease", 404)]


async def test_a_webhooks_words_are_bounded_and_on_one_line(
    server: ApiServer, cluster: Cluster
) -> None:
    server.answers = [status(422, "In\nvalid", "no\x1b[2J" + "x" * 9_000)]
    with pytest.raises(ApiError) as refused:
        await cluster.create(LEASE)
    assert refused.value.reason == "In valid"
    assert refused.value.message.startswith("no\\x1b[2Jxxx")
    assert len(refused.value.message) == 4096


async def test_every_client_hears_what_time_it_is_at_the_server(
    server: ApiServer, cluster: Cluster
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
    code: int, headers: dict[str, str], server: ApiServer, cluster: Cluster
) -> None:
    cluster.clock.own = lambda: NOW
    server.headers = {"Date": format_datetime(at(900), usegmt=True), **headers}
    server.answers = [(code, LEASE)]
    with suppress(ApiError):
        await cluster.get("Lease", "team", "bot-a1")
    assert cluster.clock.now() == NOW
