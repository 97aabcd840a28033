"""What becomes of requests that a service does not answer, and of a service that is down."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import aiohttp
import pytest
from aiohttp import web

from finetune_rewards.scores.errors import RewardUnavailable
from finetune_rewards.services.circuit import LONGEST_RETRY_AFTER_SECONDS
from support.rewards.frail_service import SHORT
from support.rewards.http_reward import TEXTS, ask, batch, scores
from support.services.judge import Document, Judge, good
from support.services.loopback import free_port


@pytest.mark.parametrize("status", [401, 403, 408, 429, 500, 502, 503, 599])
async def test_what_got_no_answer_is_sent_again_with_the_same_key(
    judge: Judge, status: int
) -> None:
    async def behave(document: Document, number: int) -> web.StreamResponse:
        return web.Response(status=status) if number < 3 else await good(document, number)

    judge.behave = behave
    assert scores(await ask(judge.url, batch("a"), retries=3)) == [1.0]
    assert len(judge.keys) == 4
    assert len(set(judge.keys)) == 1
    assert judge.documents[0] == judge.documents[3]


async def test_a_request_that_chokes_a_good_service_is_an_error(judge: Judge) -> None:
    notes: list[str | None] = []

    async def behave(document: Document, number: int) -> web.StreamResponse:
        if document["samples"][0]["completion"] in ("bb", "dddd"):
            return web.Response(status=500)
        return await good(document, number)

    judge.behave = behave
    # The first request ever is one of those: the others tell that the service is up.
    answer = await ask(judge.url, batch("bb", *TEXTS), retries=2)
    assert [item.score for item in answer.items] == [None, 1.0, None, 3.0, None, 5.0]
    errors = [item.error for item in answer.items if item.error]
    assert errors == ["no answer: 500 Internal Server Error"] * 3
    before = len(judge.documents)
    later = await ask(judge.url, batch(*TEXTS, *TEXTS), retries=2, concurrency=1, note=notes.append)
    assert [item.score for item in later.items] == [1.0, None, 3.0, None, 5.0] * 2
    sent = [document["samples"][0]["completion"] for document in judge.documents[before:]]
    assert (sent.count("bb"), sent.count("dddd")) == (6, 6)
    assert notes == []


async def test_retry_after_is_obeyed(judge: Judge) -> None:
    waited: list[float] = []
    wishes = ["7", "Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 21 Oct 2099 07:28:00 GMT", "soon"]
    wishes += ["Wed, 21 Oct 99999999999999999999 07:28:00 GMT", "9" * 400]
    wishes += ["Wed, 21 Oct 2099 07:28:00 -0000"]  # of no zone
    wishes += [format_datetime(datetime.now(timezone(timedelta(hours=12))))]

    async def recorded(seconds: float) -> None:
        waited.append(seconds)
        await asyncio.sleep(0)

    async def behave(document: Document, number: int) -> web.StreamResponse:
        if number < len(wishes):
            return web.Response(status=429, headers={"Retry-After": wishes[number]})
        return await good(document, number)

    judge.behave = behave
    waits = replace(SHORT, sleep=recorded)
    assert scores(await ask(judge.url, batch("a"), retries=9, waits=waits)) == [1.0]
    longest = LONGEST_RETRY_AFTER_SECONDS
    # And a little more, so that not all come back at the same moment.
    expected = [7.0, 0.0, longest, 0.0, 0.0, longest, longest, 0.0]
    assert len(waited) == len(expected)
    assert all(0 < found - wish < 1 for found, wish in zip(waited, expected, strict=True))


@pytest.mark.parametrize("status", [429, 503])
async def test_a_service_with_few_places_scores_all(judge: Judge, status: int) -> None:
    async def behave(document: Document, number: int) -> web.StreamResponse:
        if judge.at_once > 4:
            return web.Response(status=status)
        await asyncio.sleep(0.02)
        return await good(document, number)

    judge.behave = behave
    assert scores(await ask(judge.url, batch(*TEXTS * 16))) == [1.0, 2.0, 3.0, 4.0, 5.0] * 16
    assert len(judge.documents) > 80


async def test_a_request_that_hangs_is_given_up_and_sent_again(judge: Judge) -> None:
    async def behave(document: Document, number: int) -> web.StreamResponse:
        if number == 0:
            await asyncio.sleep(60)
        return await good(document, number)

    judge.behave = behave
    assert scores(await ask(judge.url, batch("a"), timeout_seconds=0.2)) == [1.0]
    assert len(set(judge.keys)) == 1


async def test_an_answer_that_trickles_is_given_up(judge: Judge) -> None:
    async def behave(document: Document, number: int) -> web.StreamResponse:
        if number:
            return await good(document, number)
        answer = web.StreamResponse()
        await answer.prepare(judge.requests[number])
        while True:
            await answer.write(b" ")
            await asyncio.sleep(0.02)

    judge.behave = behave
    assert scores(await ask(judge.url, batch("a"), timeout_seconds=0.2)) == [1.0]


async def test_a_connection_that_breaks_off_is_no_answer(judge: Judge) -> None:
    async def behave(document: Document, number: int) -> web.StreamResponse:
        if number < 2:
            transport = judge.requests[number].transport
            assert transport is not None
            transport.close()
        return await good(document, number)

    judge.behave = behave
    notes: list[str | None] = []
    assert scores(await ask(judge.url, batch("a"), retries=0, note=notes.append)) == [1.0]
    assert notes == ["waits for reward judge: ServerDisconnectedError", None]
    assert len(set(judge.keys)) == 1


async def test_a_service_that_is_down_holds_the_run(judge: Judge) -> None:
    notes: list[str | None] = []

    async def behave(document: Document, number: int) -> web.StreamResponse:
        down = 4 <= number < 80
        return web.Response(status=503) if down else await good(document, number)

    judge.behave = behave
    answer = await ask(judge.url, batch(*TEXTS * 4), retries=1, concurrency=2, note=notes.append)
    assert scores(answer) == [1.0, 2.0, 3.0, 4.0, 5.0] * 4
    assert notes[0] == "waits for reward judge: 503 Service Unavailable"
    assert notes[-1] is None
    assert notes.count(None) == 1
    # While it was down only the probe came, and it was a request that had been answered.
    probes = judge.keys[60:80]
    assert len(set(probes)) == 1
    assert probes[0] in judge.keys[:4]


async def test_a_service_that_stays_away_ends_the_run() -> None:
    notes: list[str | None] = []
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(RewardUnavailable, match=r"judge: no answer for 0\.1 s: no connection"):
            await ask(f"http://{where}/score", retries=1, pause_seconds=0.1, note=notes.append)
    assert notes[-1] == f"waits for reward judge: no connection to {where}: Connection refused"
    with pytest.raises(RewardUnavailable, match=r"no address of judge\.invalid: "):
        await ask("http://judge.invalid/score", retries=0, pause_seconds=0.01)


async def test_a_host_that_refuses_at_all_its_addresses_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    several = OSError("Multiple exceptions: refused, refused")  # asyncio gives it no number

    async def refuse(self: object, request: aiohttp.ClientRequest, *_: object) -> None:
        raise aiohttp.ClientConnectorError(request.connection_key, several)

    monkeypatch.setattr(aiohttp.TCPConnector, "_create_connection", refuse)
    with pytest.raises(RewardUnavailable, match="no connection to judge:80: Multiple exceptions"):
        await ask("http://judge/score", retries=0, pause_seconds=0.01)


async def test_a_service_may_come_late() -> None:
    port = free_port()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}]}")
        body = b'{"scores": [1]}'
        head = f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()

    asked = asyncio.create_task(ask(f"http://127.0.0.1:{port}/score", retries=0))
    await asyncio.sleep(0.05)
    server = await asyncio.start_server(serve, "127.0.0.1", port)
    assert scores(await asked) == [1.0] * 5
    server.close()
