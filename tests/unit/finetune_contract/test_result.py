"""A Result always fits a termination message and is found again in whatever the kubelet returns."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_contract.foreign import printable
from finetune_contract.reasons import Reason
from finetune_contract.result import MAX_BYTES, Outcome, PublishedArtifact, Result, decode

RESULT = Result(
    attempt=3,
    outcome=Outcome.FAILED,
    reason=Reason.DATA_INVALID,
    message="s3://d/train.jsonl row 3: is blank",
    step=4,
    rank=1,
    frames=("train.py:3 train",),
    artifact=PublishedArtifact(uri="s3://out", digest="sha256:1", bytes=7),
)


def test_what_fits_is_unchanged() -> None:
    assert decode(RESULT.encode()) == RESULT


@given(st.text(max_size=9000), st.lists(st.text(max_size=400), max_size=40))
def test_anything_fits_and_keeps_what_matters(message: str, frames: list[str]) -> None:
    result = RESULT.model_copy(update={"message": message, "frames": tuple(frames)})
    text = result.encode()
    assert len(text.encode()) <= MAX_BYTES
    found = decode(text)
    assert found is not None
    assert (found.reason, found.rank, found.artifact) == (result.reason, 1, result.artifact)
    assert printable(message).startswith(found.message.removesuffix("…"))
    kept = result.frames[len(frames) - len(found.frames) :]
    assert found.frames == tuple(map(printable, kept))


def test_frames_are_given_up_before_the_message() -> None:
    long = RESULT.model_copy(update={"message": "m" * 3000, "frames": ("f" * 500,) * 9})
    found = decode(long.encode())
    assert found is not None
    assert found.message == long.message
    assert 0 < len(found.frames) < 9


def test_the_last_result_in_a_log_counts() -> None:
    older = RESULT.model_copy(update={"attempt": 1}).encode()
    log = f'noise {{"a": 1}} {older}\nTraceback {{\n{RESULT.encode()} end {{"reason": 2}}'
    assert decode(log) == RESULT


def test_no_result_is_none() -> None:
    assert decode("") is None
    assert decode("Killed") is None
    assert decode('{"attempt": 1, "outcome": "Failed", "reason": "Unheard"}') is None
    assert decode(RESULT.encode()[:-3]) is None


@pytest.mark.parametrize(
    "noise",
    [
        "[" * 4000,
        '{"a":' * 800,
        '{"frames":' + "[" * 3000,
        "{" * 4096,
        '{"message": "' + "\\ud800" * 9,
        '{"step": ' + "9" * 4000 + "}",
        '{"step": 1e999}',
    ],
)
def test_a_result_is_found_behind_what_no_parser_takes(noise: str) -> None:
    assert decode(noise) is None
    assert decode(noise + '"' + RESULT.encode()) == RESULT


def test_of_a_long_log_the_end_is_read() -> None:
    assert decode(RESULT.encode() + "x" * 9000) == RESULT
    assert decode(RESULT.encode() + "x" * 3 * MAX_BYTES) is None


def test_a_longer_result_is_not_ours() -> None:
    told = RESULT.model_dump(mode="json", by_alias=True, exclude_none=True)
    assert decode(json.dumps({**told, "more": "x" * MAX_BYTES})) is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("attempt", 0),
        ("attempt", 1e30),
        ("step", -1),
        ("step", 2**53),
        ("rank", -1),
        ("rank", 1e30),
    ],
)
def test_a_number_that_none_of_ours_says_is_no_result(field: str, value: float) -> None:
    told = RESULT.model_dump(mode="json", by_alias=True, exclude_none=True)
    assert decode(json.dumps({**told, field: 7})) is not None
    assert decode(json.dumps({**told, field: value})) is None


def test_no_line_or_escape_sequence_comes_through_a_message() -> None:
    shown = RESULT.model_copy(update={"message": "row 3\n\x1b[2Jgone"})
    found = decode(shown.encode())
    assert found is not None
    assert found.message == "row 3 \\x1b[2Jgone"
