"""Mathematical equality, by math-verify."""

from __future__ import annotations

import logging
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from finetune_contract.rewards import MathReward
from finetune_rewards.builtin import Scorer, compared
from finetune_rewards.reading.final import Final, final_of, math_of, number_in, number_of
from finetune_rewards.reading.numerals import Numeral
from finetune_rewards.scores.columns import text_value

SECONDS = 5.0  # for one completion
_FOUR = re.compile(r"####(.*?)(?:\n|\Z)")
# Math in a text, or two words in a row: what is none of these is an answer and nothing else.
_PROSE = re.compile(r"\$|\\\(|\\\[|\\boxed|\n|[^\W\d_]{2,} +[^\W\d_]{2,}")

Equal = Callable[[str, str], bool | None]


class _TooLong(BaseException):
    """Not an Exception: sympy and math-verify catch those and would call it unequal."""


def scorer(settings: MathReward, name: str, seconds: float = SECONDS) -> Scorer:
    """Return 1 for the column's value, 0 for another or none; None where the column holds nothing
    that can be compared. Raises TimeoutError for a completion that takes longer than `seconds`."""
    equal = _comparison()

    def one(said: str | None, value: Any) -> float | None:
        answer = text_value(value)
        if answer is None:
            return None
        try:
            with _limited(seconds):
                return _score(said, answer, equal)
        except _TooLong:
            raise TimeoutError(f"not compared within {seconds:g} s") from None

    return compared(one, settings, settings.answer, name)


def _score(said: str | None, answer: str, equal: Equal) -> float | None:
    """Return the score of what is said; of nothing too, for the column may hold nothing."""
    last = _FOUR.findall(answer)
    right = final_of(last[-1] if last else answer)
    number = number_in(right.text) or _number_of_prose(right)
    final = final_of(said or "")
    if said is not None and final.text == right.text:
        return 1.0
    if number is not None:
        found = number_of(final)
        return float(found is not None and found.equals(number))
    same = equal(math_of(final), math_of(right))
    return None if same is None else float(same)


def _number_of_prose(right: Final) -> Numeral | None:
    """Return the number that a column's prose ends with (`The answer is 5`), unless it holds a
    formula."""
    if right.marked or not _PROSE.search(right.text) or "$" in right.text or "\\" in right.text:
        return None
    return number_of(right)


def _comparison() -> Equal:
    """Return (what is said, answer) -> whether they are equal; None for an answer that can not be
    read. Both are read as formulas and nothing else."""
    from math_verify import parse, verify

    # Its own time-outs hold for each of several comparisons, and end as "unequal".
    for module in ("parser", "grader"):
        logging.getLogger(f"math_verify.{module}").setLevel(logging.ERROR)

    def read(text: str) -> list[Any]:
        return list(parse(f"${text}$", parsing_timeout=None)) if text else []

    def equal(said: str, answer: str) -> bool | None:
        right = read(answer)
        if not right:
            return None
        return bool(verify(right, read(said), timeout_seconds=None))

    return equal


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Raise _TooLong after `seconds`. Signals reach the main thread only; in any other there is no
    limit but that of the process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise _TooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
