"""Messages keep what they carry, and what is no message is refused before it is read."""

from __future__ import annotations

import asyncio
import json
import os
import struct
import threading

import pytest

from finetune_contract.reasons import Reason
from finetune_rewards.runner import frames
from finetune_rewards.runner.protocol import (
    BadAnswer,
    Problem,
    most_answer,
    pack_items,
    pack_samples,
    unpack_items,
    unpack_samples,
)
from finetune_rewards.runner.replies import ANSWERS, DESCRIBED, Described
from finetune_rewards.scores.samples import Answer, Item, Samples


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
        struct.pack(">II", 4097, 0) + b'{"a": "' + b"x" * 4088 + b'"}',
        struct.pack(">II", 4000, 0) + b'{"a":' + b"[" * 3995,
        struct.pack(">II", 73, 0) + b'{"a":' + b"[" * 33 + b"1" + b"]" * 33 + b"}",
        struct.pack(">II", 15, 0) + b'{"a":1, "a": 2}',
        struct.pack(">II", 10, 0) + b'{"a": NaN}',
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


def test_a_body_that_nobody_would_take_is_not_sent() -> None:
    size = frames.MOST_BODY + 1  # of zeros, for which no memory is taken
    with pytest.raises(frames.BadFrame, match=f"a message of {size + 2} bytes is too large"):
        frames.encode({}, bytes(size))


async def test_a_body_may_be_as_large_as_the_reader_takes() -> None:
    assert await read(frames.encode({}, b"x" * 100), 100) == ({}, b"x" * 100)


def test_a_pipe_carries_messages_larger_than_itself() -> None:
    source, sink = os.pipe()
    bodies = [os.urandom(2**20), os.urandom(2**19)]

    def write() -> None:
        for body in bodies:
            frames.write_to(sink, {"a": 1}, body)

    writing = threading.Thread(target=write)
    writing.start()
    assert [frames.read_from(source) for _ in bodies] == [({"a": 1}, body) for body in bodies]
    writing.join()
    os.close(sink)
    with pytest.raises(EOFError):
        frames.read_from(source)
    os.close(source)


def test_a_message_is_written_whole_though_the_kernel_takes_it_in_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source, sink = os.pipe()
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:7]))
    frames.write_to(sink, {"a": 1}, b"x" * 100)
    assert frames.read_from(source) == ({"a": 1}, b"x" * 100)
    os.close(source)
    os.close(sink)


def test_samples_keep_messages_columns_and_odd_text() -> None:
    turns = [{"role": "assistant", "content": "\ud800 é"}]
    ids = [[0, 1, 2**31 - 1]]
    batch = Samples([turns], [turns], ids, {"meta": [{"a": [None, 1.5]}]}, 7, ["<think>"])
    assert unpack_samples(pack_samples(batch)) == batch


def test_items_keep_scores_abstentions_and_errors_within_their_bound() -> None:
    worst = "\U0001f600" * 200
    items = [Item(0.0), Item(), Item(error="no"), Item(error=worst)]
    assert unpack_items(b"[1]", 1) == [Item(1.0)]
    packed = pack_items(items)
    assert unpack_items(packed, 4) == items
    for count in (1, 64):
        assert len(pack_items([Item(error=worst)] * count)) <= most_answer(count)
    assert len(pack_items([Item(-1.2345678901234567e-300)])) <= most_answer(1)
    assert most_answer(1) < 2**12


def test_answers_and_descriptions_keep_all_they_say() -> None:
    answers = {"a": Answer([Item(0.5), Item(), Item(error="no")], 1.5), "b": Answer([], 0.0)}
    assert ANSWERS.validate_json(ANSWERS.dump_json(answers)) == answers
    problem = Problem(Reason.SANDBOX_UNAVAILABLE, "no")
    described = [Described("a", "sha256:1"), Described("b"), Described("c", None, problem)]
    assert DESCRIBED.validate_json(DESCRIBED.dump_json(described)) == described


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"[0.0, 0.0",
        b"5",
        b'{"a": 1, "b": 2}',
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
