"""Messages keep what they carry, and what is no message is refused before it is read."""

from __future__ import annotations

import asyncio
import json
import os
import struct
import threading

import pytest

from finetune_rewards import frames
from finetune_rewards.protocol import (
    BadAnswer,
    most_answer,
    pack_items,
    pack_samples,
    unpack_items,
    unpack_samples,
)
from finetune_rewards.samples import Item, Samples


async def read(data: bytes, most_body: int = frames.MOST_BODY) -> tuple[frames.Header, bytes]:
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    return await frames.read(reader, most_body)


async def test_a_message_keeps_its_header_and_body() -> None:
    assert await read(frames.encode({"id": 1}, b"\0\xff")) == ({"id": 1}, b"\0\xff")


@pytest.mark.parametrize(
    "data",
    [
        struct.pack(">II", 2**31, 0),
        struct.pack(">II", 2, 101) + b"{}" + b"x" * 101,
        struct.pack(">II", 2, 0) + b"[]",
        struct.pack(">II", 2, 0) + b"\xff\xff",
    ],
)
async def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(frames.BadFrame):
        await read(data, 100)


async def test_a_message_that_breaks_off_is_told_apart() -> None:
    with pytest.raises(asyncio.IncompleteReadError):
        await read(frames.encode({"id": 1}, b"abc")[:-1])


def test_a_header_that_nobody_would_take_is_not_sent() -> None:
    with pytest.raises(frames.BadFrame):
        frames.encode({"x": "y" * frames.MOST_HEADER})


def test_a_pipe_carries_messages_larger_than_itself() -> None:
    source, sink = os.pipe()
    body = os.urandom(2**20)
    writing = threading.Thread(target=frames.write_to, args=(sink, {"a": 1}, body))
    writing.start()
    assert frames.read_from(source) == ({"a": 1}, body)
    writing.join()
    os.close(sink)
    with pytest.raises(EOFError):
        frames.read_from(source)
    os.close(source)


def test_samples_keep_messages_columns_and_odd_text() -> None:
    turns = [{"role": "assistant", "content": "\ud800 é"}]
    batch = Samples([turns], [turns], [[1, 2]], {"meta": [{"a": [None, 1.5]}]}, 7)
    assert unpack_samples(pack_samples(batch)) == batch


def test_items_keep_scores_abstentions_and_errors_within_their_bound() -> None:
    worst = "\U0001f600" * 200
    items = [Item(0.0), Item(), Item(error="no"), Item(error=worst)]
    packed = pack_items(items)
    assert unpack_items(packed, 4) == items
    assert len(pack_items([Item(error=worst)] * 64)) <= most_answer(64)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"[0.0, 0.0",
        b"[" * 100_000,
        b"{}",
        b"[0.0]",
        b"[0.0, 0.0, 0.0]",
        b"[0.0, NaN]",
        b"[0.0, -Infinity]",
        b"[0.0, 1e999]",
        b"[0.0, true]",
        b"[0.0, []]",
        b"[0.0, " + b"9" * 400 + b"]",
    ],
)
def test_an_answer_of_anything_else_is_no_answer(answer: bytes) -> None:
    with pytest.raises(BadAnswer):
        unpack_items(answer, 2)


def test_an_error_from_a_worker_is_one_short_line() -> None:
    (item,) = unpack_items(json.dumps(["a\n\x1b[31mb" + "x" * 1000]).encode(), 1)
    assert item.error is not None
    assert item.error.startswith("a [31mb")
    assert len(item.error) <= 200
