"""Rewards over HTTP, against a real server that misbehaves in every way."""

from __future__ import annotations

import asyncio
import gc
import ssl
import threading
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web

from finetune_contract.rewards import Reward
from finetune_rewards.errors import RewardInvalid, RewardUnavailable
from finetune_rewards.http import MOST_BYTES, HttpScorer
from finetune_rewards.samples import Item, Samples
from support.asked_service import TEXTS, ask, batch, scores
from support.judge_server import Document, Judge, after, good, judge_server, lengths

pytestmark = pytest.mark.usefixtures("short_waits")


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
    headers = judge.requests[0].headers
    assert headers["Content-Type"] == headers["Accept"] == "application/json"
    assert headers["Accept-Encoding"] == "identity"


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


async def test_a_row_that_a_service_quotes_goes_no_further(judge: Judge) -> None:
    async def behave(document: Document, number: int) -> web.StreamResponse:
        quoted = document["samples"][0]["completion"]
        return web.json_response({"scores": [None], "errors": {"0": f"can not parse {quoted}!"}})

    judge.behave = behave
    answer = await ask(judge.url, batch("the patient Jane Doe is ill", diagnosis=["flu"]))
    assert answer.items == [Item(error="the service says: can not parse …!")]


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


async def test_as_many_requests_are_under_way_as_are_allowed(judge: Judge) -> None:
    """More than a client has connections by itself: each waits for all the others."""
    together, all_there = 120, asyncio.Event()

    async def behave(document: Document, number: int) -> web.StreamResponse:
        if judge.at_once == together:
            all_there.set()
        await asyncio.wait_for(all_there.wait(), 30)
        return await good(document, number)

    judge.behave = behave
    answer = await ask(judge.url, batch(*["a"] * together), concurrency=together, batch_size=1)
    assert scores(answer) == [1.0] * together
    assert judge.most_at_once == together


async def test_parts_are_told_of_as_they_are_answered(judge: Judge) -> None:
    told: list[tuple[int, int]] = []
    second = threading.Event()

    def tell(start: int, stop: int) -> None:
        told.append((start, stop))
        second.set()

    async def behave(document: Document, number: int) -> web.StreamResponse:
        if document["samples"][0]["completion"] == "a":
            await asyncio.to_thread(second.wait, 30)
        return await good(document, number)

    judge.behave = behave
    http = {"url": judge.url, "batchSize": 2, "concurrency": 2}
    reward = Reward.model_validate({"name": "judge", "http": http})
    async with HttpScorer(reward, credentials_dir=None, ranks=1, note=lambda _: None) as scorer:
        await scorer.score(batch("a", "b", "c"), tell)
    assert told == [(2, 4), (0, 2)]


async def test_nothing_of_a_client_is_left(judge: Judge) -> None:
    left: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: left.append(context))
    await ask(judge.url, batch("a"))
    gc.collect()
    assert left == []


async def test_cookies_are_not_kept(judge: Judge) -> None:
    async def behave(document: Document, number: int) -> web.StreamResponse:
        answer = web.json_response({"scores": lengths(document)})
        answer.set_cookie("whom", "I know")
        return answer

    judge.behave = behave
    url = judge.url.replace("127.0.0.1", "localhost")  # an address would have no cookies anyway
    await ask(url, batch(*TEXTS), concurrency=1, batch_size=1)
    assert len(judge.requests) == 5
    assert all("Cookie" not in request.headers for request in judge.requests)


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


async def test_a_token_that_is_gone_for_a_moment_is_waited_for(
    judge: Judge, tmp_path: Path
) -> None:
    token, notes = tmp_path / "token", []

    async def behave(document: Document, number: int) -> web.StreamResponse:
        token.write_text("")
        return web.Response(status=401)

    def note(text: str | None) -> None:
        notes.append(text)
        judge.behave = good
        token.write_text("new")

    token.write_text("old")
    judge.behave = behave
    found = await ask(judge.url, batch("a"), credentials_dir=str(tmp_path), note=note, retries=1)
    assert scores(found) == [1.0]
    assert notes[0] == (
        "waits for reward judge: the Secret of http.credentialsSecretRef: 'token' is no token that "
        "a header can carry"
    )


async def test_a_private_authority_is_trusted(judge: Judge, tmp_path: Path) -> None:
    authority, tls = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    with judge_server(tls=tls) as secured:
        with pytest.raises(RewardUnavailable, match=r"certificate of 127\.0\.0\.1:\d+ is not tr"):
            await ask(secured.url, retries=0, pause_seconds=0.01)
        authority.cert_pem.write_to_path(str(tmp_path / "ca.crt"))
        trusting = await ask(secured.url, credentials_dir=str(tmp_path))
        assert scores(trusting) == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert "Authorization" not in secured.requests[0].headers
    with pytest.raises(RewardUnavailable, match=r"no TLS with 127\.0\.0\.1:\d+: WRONG_VERSION"):
        await ask(judge.url.replace("http:", "https:"), retries=0, pause_seconds=0.01)
    (tmp_path / "ca.crt").write_text("none")
    with pytest.raises(RewardInvalid, match=r"reward judge: the Secret .*'ca\.crt' holds no cert"):
        await ask(secured.url, credentials_dir=str(tmp_path))


async def test_without_credentials_there_is_no_token(judge: Judge) -> None:
    await ask(judge.url, batch("a"))
    assert "Authorization" not in judge.requests[0].headers


@pytest.mark.parametrize("token", [None, b"", b" \n", b"a\nb", "ключ".encode(), b"\xff\xfe"])
async def test_an_unusable_token_is_refused(token: bytes | None, tmp_path: Path) -> None:
    if token is not None:
        (tmp_path / "token").write_bytes(token)
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
