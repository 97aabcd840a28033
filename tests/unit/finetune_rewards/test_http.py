"""Rewards over HTTP, against a real server that misbehaves in every way."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from finetune_contract.rewards import Reward
from finetune_rewards import circuit
from finetune_rewards.circuit import Note
from finetune_rewards.errors import RewardInvalid, RewardUnavailable
from finetune_rewards.http import MOST_BYTES, HttpScorer
from finetune_rewards.samples import Answer, Item, Samples
from support.judge_server import Document, Judge, after, good, judge_server

TEXTS = ["a", "bb", "ccc", "dddd", "eeeee"]


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(circuit, "FIRST_WAIT_SECONDS", 0.001)
    monkeypatch.setattr(circuit, "FIRST_PROBE_SECONDS", 0.001)
    monkeypatch.setattr(circuit, "LONGEST_PROBE_SECONDS", 0.01)


@pytest.fixture
def judge() -> Iterator[Judge]:
    with judge_server() as found:
        yield found


def batch(*completions: str, **columns: list[Any]) -> Samples:
    texts = list(completions or TEXTS)
    return Samples(["?"] * len(texts), list(texts), [[1]] * len(texts), columns, step=7)


async def ask(
    url: str,
    samples: Samples | None = None,
    *,
    credentials_dir: str | None = None,
    ranks: int = 1,
    note: Note = lambda _: None,
    **settings: Any,
) -> Answer:
    reward = Reward.model_validate({"name": "judge", "http": {"url": url, **settings}})
    async with HttpScorer(
        reward, credentials_dir=credentials_dir, ranks=ranks, note=note
    ) as scorer:
        return await scorer.score(batch() if samples is None else samples)


def scores(answer: Answer) -> list[float | None]:
    assert all(item.error is None for item in answer.items)
    return [item.score for item in answer.items]


async def test_a_batch_is_asked_in_parts_and_answered_in_order(judge: Judge) -> None:
    samples = batch(*TEXTS, answer=[1, 2, 3, 4, None])
    answer = await ask(judge.url, samples, batch_size=2)
    assert scores(answer) == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert answer.seconds > 0
    assert sorted(len(document["samples"]) for document in judge.documents) == [1, 2, 2]
    [last] = [document for document in judge.documents if len(document["samples"]) == 1]
    assert last == {
        "version": 1,
        "reward": "judge",
        "step": 7,
        "samples": [{"prompt": "?", "completion": "eeeee", "columns": {"answer": None}}],
    }
    assert len(set(judge.keys)) == 3


async def test_dialogues_are_sent_as_messages(judge: Judge) -> None:
    turn = [{"role": "assistant", "content": "a"}]
    await ask(judge.url, Samples([[{"role": "user", "content": "?"}]], [turn], [[1]]))
    assert judge.documents[0]["samples"][0] == {
        "prompt": [{"role": "user", "content": "?"}],
        "completion": turn,
        "columns": {},
    }


async def test_null_abstains_and_errors_are_told(judge: Judge) -> None:
    async def behave(document: Document, number: int) -> web.StreamResponse:
        return web.json_response({"scores": [1, None, 0.5], "errors": {"2": "no\nidea"}})

    judge.behave = behave
    answer = await ask(judge.url, batch("a", "b", "c"), batch_size=3)
    assert answer.items == [
        Item(score=1.0),
        Item(),
        Item(error="the service says: no idea"),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"scores": [NaN, 1]}', "the score is nan"),
        ('{"scores": [Infinity, 1]}', "the score is inf"),
        ('{"scores": [-1e999, 1]}', "the score is -inf"),
        ('{"scores": [1' + "0" * 400 + ", 1]}", "the score is too large"),
        ('{"scores": ["1", 1]}', "the score is text"),
        ('{"scores": [true, 1]}', "the score is a truth value"),
        ('{"scores": [[1], 1]}', "the score is of type list"),
    ],
)
async def test_a_bad_score_is_the_error_of_its_item(judge: Judge, text: str, words: str) -> None:
    async def behave(document: Document, number: int) -> web.StreamResponse:
        return web.Response(text=text, content_type="application/json")

    judge.behave = behave
    bad, fine = (await ask(judge.url, batch("a", "b"), batch_size=2)).items
    assert bad.score is None
    assert bad.error is not None
    assert words in bad.error
    assert fine == Item(score=1.0)
    assert len(judge.documents) == 1  # asking again would not help


def response(body: bytes, **arguments: Any) -> Any:
    async def behave(document: Document, number: int) -> web.StreamResponse:
        return web.Response(body=body, **arguments)

    return behave


@pytest.mark.parametrize(
    ("behave", "words"),
    [
        (response(b'{"scores": [1]}'), "1 scores for 2"),
        (response(b'{"scores": [1, 2, 3]}'), "3 scores for 2"),
        (response(b'{"scores": 5}'), "instead of a list"),
        (response(b'{"score": [1, 2]}'), "no object with scores"),
        (response(b"[1, 2]"), "no object with scores"),
        (response(b'{"scores": [1, 2], "errors": [1]}'), "errors of the answer is no object"),
        (response(b"<html>"), "not JSON"),
        (response(b"[" * 100_000), "not JSON"),
        (response(b"\xff"), "not JSON"),
        (response(b"", status=404), "404 Not Found"),
        (response(b"", status=422), "422"),
        (response(b"", status=307, headers={"Location": "/score"}), "307"),
        (response(b'{"scores": [1, 2]}' + b" " * 10_000_000), "larger than 4 MiB"),
        (response(b"{}", headers={"Content-Encoding": "gzip"}), "compressed"),
    ],
)
async def test_a_useless_answer_is_an_error_of_each_item(
    judge: Judge, behave: Any, words: str
) -> None:
    judge.behave = behave
    answer = await ask(judge.url, batch("a", "b"), batch_size=2)
    assert [item.score for item in answer.items] == [None, None]
    assert all(item.error is not None and words in item.error for item in answer.items)
    assert len(judge.documents) == 1


async def test_an_answer_may_be_as_large_as_the_limit(judge: Judge) -> None:
    text = b'{"scores": [1, 2]}'
    judge.behave = response(text + b" " * (MOST_BYTES - len(text)))
    assert scores(await ask(judge.url, batch("a", "b"), batch_size=2)) == [1.0, 2.0]


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
    later = await ask(judge.url, batch(*TEXTS, *TEXTS), retries=2, concurrency=1, note=notes.append)
    assert [item.score for item in later.items] == [1.0, None, 3.0, None, 5.0] * 2
    assert notes == []


async def test_retry_after_is_obeyed(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    sleep = asyncio.sleep
    wishes = ["7", "Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 21 Oct 2099 07:28:00 GMT", "soon"]

    async def recorded(seconds: float) -> None:
        waited.append(seconds)
        await sleep(0)

    async def behave(document: Document, number: int) -> web.StreamResponse:
        if number < len(wishes):
            return web.Response(status=429, headers={"Retry-After": wishes[number]})
        return await good(document, number)

    judge.behave = behave
    monkeypatch.setattr(asyncio, "sleep", recorded)
    assert scores(await ask(judge.url, batch("a"), retries=9)) == [1.0]
    seconds, past, far, nonsense = waited
    assert seconds == 7.0
    assert far == circuit.LONGEST_RETRY_AFTER_SECONDS
    assert 0 <= past < 1
    assert 0 <= nonsense < 1


async def test_concurrency_is_bounded_and_shared_by_ranks(judge: Judge) -> None:
    judge.behave = after(0.02)
    await ask(judge.url, batch(*TEXTS * 4), concurrency=6)
    assert judge.most_at_once == 6
    judge.most_at_once = 0
    await ask(judge.url, batch(*TEXTS * 4), concurrency=6, ranks=3)
    assert judge.most_at_once == 2
    judge.most_at_once = 0
    await ask(judge.url, batch(*TEXTS), concurrency=2, ranks=8)
    assert judge.most_at_once == 1


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


async def test_the_token_is_read_again(judge: Judge, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("old\n")

    async def behave(document: Document, number: int) -> web.StreamResponse:
        if judge.requests[number].headers["Authorization"] == "Bearer old":
            token.write_text("new")
            return web.Response(status=401)
        return await good(document, number)

    judge.behave = behave
    assert scores(await ask(judge.url, batch("a"), credentials_dir=str(tmp_path))) == [1.0]
    assert judge.requests[-1].headers["Authorization"] == "Bearer new"


async def test_without_credentials_there_is_no_token(judge: Judge) -> None:
    await ask(judge.url, batch("a"))
    assert "Authorization" not in judge.requests[0].headers


@pytest.mark.parametrize("token", [None, "", " \n", "a\nb", "ключ"])
async def test_an_unusable_token_is_refused(token: str | None, tmp_path: Path) -> None:
    if token is not None:
        (tmp_path / "token").write_text(token)
    with pytest.raises(RewardInvalid, match=r"reward judge: the Secret of http\.credentials"):
        await ask("http://127.0.0.1:1/score", credentials_dir=str(tmp_path))


async def test_the_environments_proxy_is_not_asked(
    judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    assert scores(await ask(judge.url, batch("a"), retries=0)) == [1.0]


async def test_a_redirect_is_not_followed(judge: Judge) -> None:
    with judge_server() as other:
        judge.behave = response(b"", status=308, headers={"Location": other.url})
        answer = await ask(judge.url, batch("a"))
        assert answer.items == [Item(error="the service answered 308 Permanent Redirect")]
        assert other.documents == []


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
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/score"
        with pytest.raises(RewardUnavailable, match=r"judge: no answer for 0\.1 s: no connection"):
            await ask(url, retries=1, pause_seconds=0.1, note=notes.append)
    assert notes[-1] == "waits for reward judge: no connection"


async def test_a_service_may_come_late() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]

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
