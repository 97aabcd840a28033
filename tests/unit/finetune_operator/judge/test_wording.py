"""A sentence says what is known and no more, and fits where it is written."""

import pytest

from finetune_contract.reasons import Reason
from finetune_operator.judge.wording import attempt_end, bounded, with_advice
from support.operator.values import attempt


@pytest.mark.parametrize(
    ("last", "lost", "after"),
    [
        (None, None, ""),
        (0, 0, " after 0 steps"),
        (12, 0, " after 12 steps"),
        (12, None, " after 12 steps"),
        (12, 2, " after 12 steps, 2 of them lost"),
    ],
)
def test_an_end_tells_of_steps_as_far_as_they_are_known(
    last: int | None, lost: int | None, after: str
) -> None:
    record = attempt(3, reason=Reason.POD_LOST, message="gone", last_step=last, lost_steps=lost)
    assert attempt_end(record) == f"attempt 3 ended{after}: PodLost: gone"


def test_advice_follows_what_happened_if_there_is_any() -> None:
    assert with_advice("out of memory", Reason.OUT_OF_MEMORY).startswith("out of memory; ")
    assert with_advice("attempt 1 is running", Reason.RUNNING) == "attempt 1 is running"


@pytest.mark.parametrize("length", [9, 10, 11, 99])
def test_a_text_is_cut_only_if_it_is_too_long(length: int) -> None:
    text = "x" * length
    short = bounded(text, 10)
    assert len(short) == min(length, 10)
    assert (short == text) is (length <= 10)
