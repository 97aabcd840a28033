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
from finetune_rewards.scores.columns import text_value

SECONDS = 5.0  # for one completion
# Math in a text, or two words in a row: what is none of these is an answer and nothing else.
_PROSE = re.compile(r"\$|\\\(|\\\[|\\boxed|####|\n|[^\W\d_]{2,} +[^\W\d_]{2,}")
_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_THOUGHT = "</think>"

Equal = Callable[[str, str, bool], bool | None]


class _TooLong(BaseException):
    """Not an Exception: sympy and math-verify catch those and would call it unequal."""


def scorer(settings: MathReward, name: str, seconds: float = SECONDS) -> Scorer:
    """Return 1 for the column's value, 0 for another or none; None where the column holds nothing
    that can be compared. Raises TimeoutError for a completion that takes longer than `seconds`."""
    equal = _comparison()
    return compared(
        lambda completion, value: _score(completion, text_value(value), equal, seconds),
        *(settings.answer, name),
    )


def _score(completion: str, answer: str | None, equal: Equal, seconds: float) -> float | None:
    if answer is None:
        return None
    final = completion.rpartition(_THOUGHT)[2].strip()
    tagged = _TAGGED.findall(final)
    said = tagged[-1].strip() if tagged else final
    if said == answer:
        return 1.0
    try:
        with _limited(seconds):
            same = equal(said, answer, bool(tagged))
    except _TooLong:
        raise TimeoutError(f"not compared within {seconds:g} s") from None
    return None if same is None else float(same)


def _comparison() -> Equal:
    """Return (what is said, answer, whether only an answer is said) -> whether they are equal; None
    for an answer that can not be read."""
    from math_verify import parse, verify

    # Its own time-outs hold for each of several comparisons, and end as "unequal".
    for module in ("parser", "grader"):
        logging.getLogger(f"math_verify.{module}").setLevel(logging.ERROR)

    def read(text: str) -> list[Any]:
        return list(parse(text, parsing_timeout=None))

    def read_answer(text: str) -> list[Any]:
        found = read(text) if _PROSE.search(text) else []
        return found or read(f"${text}$")

    def equal(said: str, answer: str, only: bool) -> bool | None:
        right = read_answer(answer)
        if not right:
            return None
        left = read_answer(said) if only else read(said)
        return bool(verify(right, left, timeout_seconds=None))

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
