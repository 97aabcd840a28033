"""Rewards over HTTP, against a real server that misbehaves in every way."""

from __future__ import annotations

import asyncio
import gc
import ssl
import threading
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web

from finetune_contract.rewards import Reward
from finetune_rewards.scores.errors import RewardInvalid, RewardUnavailable
from finetune_rewards.scores.samples import Item, Samples, Text
from finetune_rewards.services.http import HttpScorer
from support.rewards.http_reward import TEXTS, ask, batch, scores
from support.services.judge import Document, Judge, after, answering, good, judge_server, lengths


async def test_a_batch_is_asked_in_parts_and_answered_in_order(judge: Judge) -> None:
    right = [1, 2, 3, 4, None]
    prompts: list[Text] = [f"{number}?" for number in range(5)]
    asked = Samples(prompts, [*TEXTS], [[1]] * 5, {"answer": right}, step=7)
    answer = await ask(judge.url, asked, batch_size=2, concurrency=1)
    assert scores(answer) == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert answer.seconds > 0
    assert [len(document["samples"]) for document in judge.documents] == [2, 2, 1]
    assert [sample for document in judge.documents for sample in document["samples"]] == [
        {"prompt": prompt, "completion": text, "columns": {"answer": column}}
        for prompt, text, column in zip(prompts, TEXTS, right, strict=True)
    ]
    for document in judge.documents:
        assert [document[name] for name in ("version", "reward", "step")] == [1, "judge", 7]
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
    reward = Reward.model_validate({"name": "polite", "http": http})
    made = HttpScorer(reward, credentials_dir=None, ranks=1, note=lambda _: None)
    async with aclosing(made) as scorer:
        await scorer.score(batch("a", "b", "c"), tell)
    assert told == [(2, 4), (0, 2)]
    assert {document["reward"] for document in judge.documents} == {"polite"}


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
        "waits for reward judge: the Secret of http.credentialsSecretRef: 'token' is empty"
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


async def test_the_systems_authorities_are_trusted_and_names_are_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "system.crt"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "system.crt"))
    for name, trusted in (("127.0.0.1", True), ("other.test", False)):
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(name).configure_cert(tls)
        with judge_server(tls=tls) as secured:
            asking = ask(secured.url, batch("a"), retries=0, pause_seconds=0.01)
            if trusted:
                assert scores(await asking) == [1.0]
            else:
                with pytest.raises(RewardUnavailable, match=r"is not trusted: .*mismatch"):
                    await asking


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
        judge.behave = answering(b"", status=308, headers={"Location": other.url})
        answer = await ask(judge.url, batch("a"))
        assert answer.items == [Item(error="the service answered 308 Permanent Redirect")]
        assert other.documents == []
