"""Mathematical equality, by math-verify."""

from __future__ import annotations

import logging
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from finetune_contract.rewards import MathReward
from finetune_rewards.columns import column, text_value
from finetune_rewards.samples import Samples, text_of

SECONDS = 5.0  # for one completion
_PROSE = re.compile(r"\$|\\\(|\\\[|\\boxed|####|\n")

Equal = Callable[[str, str], bool | None]


class _TooLong(BaseException):
    """Not an Exception: sympy and math-verify catch those and would call it unequal."""


def scorer(settings: MathReward, name: str) -> Callable[[Samples], list[float | None]]:
    """Return 1 for the column's value, 0 for another or none; None where the column holds nothing
    that can be compared. Raises TimeoutError for one that takes longer than SECONDS."""
    equal = _comparison()

    def score(samples: Samples) -> list[float | None]:
        answers = column(samples, settings.answer, name)
        return [
            _score(text_of(completion), text_value(answer), equal)
            for completion, answer in zip(samples.completions, answers, strict=True)
        ]

    return score


def _score(completion: str, answer: str | None, equal: Equal) -> float | None:
    if answer is None:
        return None
    if completion.strip() == answer:
        return 1.0
    try:
        with _limited():
            same = equal(completion, answer)
    except _TooLong:
        raise TimeoutError(f"not compared within {SECONDS:g} s") from None
    return None if same is None else float(same)


def _comparison() -> Equal:
    """Return (completion, answer) -> whether they are equal, None for an unreadable answer."""
    from math_verify import parse, verify

    # Its own time-outs hold for each of several comparisons, and end as "unequal".
    for module in ("parser", "grader"):
        logging.getLogger(f"math_verify.{module}").setLevel(logging.ERROR)

    def equal(completion: str, answer: str) -> bool | None:
        right = parse(answer if _PROSE.search(answer) else f"${answer}$", parsing_timeout=None)
        if not right:
            return None
        return bool(verify(right, parse(completion, parsing_timeout=None), timeout_seconds=None))

    return equal


@contextmanager
def _limited() -> Iterator[None]:
    """Raise _TooLong after SECONDS. Signals reach the main thread only; in any other there is no
    limit but that of the process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise _TooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
