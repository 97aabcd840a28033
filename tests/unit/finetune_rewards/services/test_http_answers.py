"""What a service may answer, and what becomes of anything else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from aiohttp import web
from multidict import CIMultiDict

from finetune_rewards.scores.answers import LONGEST_ERROR
from finetune_rewards.scores.samples import Item
from finetune_rewards.services.http import MOST_BYTES
from support.rewards.http_reward import ask, batch, scores
from support.services.judge import Document, Judge, answering


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


ENCODED_TWICE = CIMultiDict([("Content-Encoding", "identity"), ("Content-Encoding", "gzip")])
DEEP = b"[" * 900 + b"]" * 900


@pytest.mark.parametrize(
    ("behave", "words"),
    [
        (answering(b'{"scores": [1]}'), "1 scores for 2"),
        (answering(b'{"scores": [1, 2, 3]}'), "3 scores for 2"),
        (answering(b'{"scores": 5}'), "instead of a list"),
        (answering(b'{"score": [1, 2]}'), "no object with scores"),
        (answering(b"[1, 2]"), "no object with scores"),
        (answering(b'{"scores": [1, 2], "errors": [1]}'), "errors of the answer is no object"),
        (answering(b"5"), "no object with scores"),
        (answering(b'"scores"'), "no object with scores"),
        (answering(b"<html>"), "not JSON"),
        (answering(b"[" * 100_000), "nests deeper"),
        (answering(b'{"scores": [1, 2], "errors": {"0": ' + DEEP + b"}}"), "nests deeper"),
        (answering(b'{"scores": [1, 2], "scores": [3, 4]}'), "says a name twice"),
        (answering(b'{"scores": [1' + b"0" * 5000 + b", 2]}"), "not JSON"),
        (answering(b"\xff"), "not JSON"),
        (answering(b'{"scores": [1, 2]}', status=201), "201 Created"),
        (answering(b"", status=404), "404 Not Found"),
        (answering(b"", status=499), "499"),
        (answering(b"", status=422), "422"),
        (answering(b"", status=307, headers={"Location": "/score"}), "307"),
        (answering(b'{"scores": [1, 2]}' + b" " * 10_000_000), "larger than 4 MiB"),
        (answering(b"{}", headers={"Content-Encoding": "gzip"}), "compressed"),
        (answering(b"{}", headers=ENCODED_TWICE), "compressed"),
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
    judge.behave = answering(text + b" " * (MOST_BYTES - len(text)))
    assert scores(await ask(judge.url, batch("a", "b"), batch_size=2)) == [1.0, 2.0]


async def test_an_answer_without_end_is_left(judge: Judge) -> None:
    async def behave(document: Document, number: int) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(judge.requests[number])
        while True:
            await answer.write(b" " * 2**20)

    judge.behave = behave
    answer = await ask(judge.url, batch("a"), timeout_seconds=20, retries=0, pause_seconds=0.1)
    assert answer.items == [Item(error="the answer is larger than 4 MiB")]


async def test_an_empty_word_on_errors_is_none(judge: Judge) -> None:
    judge.behave = answering(b'{"scores": [1, 2], "errors": null}')
    assert scores(await ask(judge.url, batch("a", "b"), batch_size=2)) == [1.0, 2.0]


async def test_an_error_counts_for_more_than_a_score_and_may_be_any_value(judge: Judge) -> None:
    judge.behave = answering(b'{"scores": [1, 2], "errors": {"1": 5, "7": "x"}}')
    answer = await ask(judge.url, batch("a", "b"), batch_size=2)
    assert answer.items == [Item(score=1.0), Item(error="the service says: 5")]


async def test_no_more_of_an_error_is_searched_for_rows_than_is_told(judge: Judge) -> None:
    """Else a service could keep the run busy with one long text."""
    row = "x" * LONGEST_ERROR
    said = {"scores": [None], "errors": {"0": row + " and so on" * 10**5}}
    judge.behave = answering(json.dumps(said).encode())
    (item,) = (await ask(judge.url, batch(row))).items
    assert item.error == "the service says: …"
