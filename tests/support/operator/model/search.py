"""Let hypothesis look for a schedule that the operator does not stand.

As a program it says after how many schedules it found one that the finetune_operator on its path
does not stand: of the package with a bug in it there can be only one in a process.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

import finetune_operator
from support.operator.backends import BACKENDS, Played
from support.operator.model.drawn import schedules
from support.operator.model.moves import play
from support.operator.model.schedules import Schedule

CHECKS: dict[str, Any] = {"deadline": None, "suppress_health_check": list(HealthCheck)}
ROUNDS, ROUND = 20, 100  # of schedules
LONGEST = 200  # characters of what was wrong


def search(part: int, most: int, phases: Sequence[Phase] = tuple(Phase)) -> int:
    """Try schedules that strangers take part in or not, of one operator or two, as the part's
    number says; return how many. Raises what the first raised that the operator does not stand."""
    hostile, two, tried = part % 2 == 1, part // 2 % 2 == 1, 0

    @seed(part)
    @settings(max_examples=most, phases=phases, report_multiple_bugs=False, **CHECKS)
    @given(schedules(hostile, two), st.booleans(), st.sampled_from(BACKENDS))
    def try_it(schedule: Schedule, code: bool, backend: Played) -> None:
        nonlocal tried
        tried += 1
        try:
            play(schedule, code, backend, two)
        except Exception as error:
            error.add_note(f"it was schedule {tried} of part {part}")
            error.schedules = tried  # type: ignore[attr-defined]
            raise

    try_it()
    return tried


def until_found() -> tuple[int, str]:
    """Return after how many schedules one was found, and what was wrong; "" if there was none."""
    tried = 0
    for part in range(ROUNDS):
        found, wrong = _try(part)
        tried += found
        if wrong:
            return tried, wrong
    return tried, ""


def _try(part: int) -> tuple[int, str]:
    try:
        return search(part, ROUND, phases=[Phase.generate]), ""
    except Exception as error:  # noqa: BLE001 (whatever a bug leads to)
        count = getattr(error, "schedules", 0)
        return count, f"{type(error).__name__}: {error}"[:LONGEST]


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    count, wrong = until_found()
    said = {"package": finetune_operator.__file__, "schedules": count, "wrong": wrong}
    sys.stdout.write(json.dumps(said) + "\n")
