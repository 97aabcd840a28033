"""A Result always fits a termination message and is found again in whatever the kubelet returns."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

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
    assert message.startswith(found.message.removesuffix("…"))
    assert found.frames == result.frames[len(frames) - len(found.frames) :]


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
