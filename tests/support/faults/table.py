"""What befalls a job, measured, as one line of the table in docs/operations.md."""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

from finetune_contract.reasons import Reason, Retry, retry_of
from support.faults.day import STRUCK_AT, Day
from support.operator.model.invariants import condition
from support.operator.model.simulated_time import simulated

Json = Any
Strike = Callable[[Day], None]
MENDED_AFTER = 60  # seconds
QUIET = 90  # seconds in which nothing happens
MENDED_LIMIT, LIMIT = 650, 1500
NEUTRAL = {
    Reason.SUCCEEDED,
    Reason.PENDING,
    Reason.RUNNING,
    Reason.RETRYING,
    Reason.STOPPING,
}
WITH = re.compile(r"attempt \d+ follows with (.*)")
HEAD = ("what happens", "status says", "within", "then", "steps lost")
COUNTED = {Retry.COUNTED, Retry.LESS_MEMORY}


@dataclass(frozen=True)
class Fault:
    """One row. It strikes a run under way, or is there `before` it, or before the attempt that
    follows one that was drained (`again`); `harmless` ones change nothing.

    `patience` is for how many seconds the trainer itself bears it. `mend` takes the cause away.
    """

    what: str
    strike: Strike
    before: bool = False
    again: bool = False
    harmless: bool = False
    patience: float = 0
    mend: Strike | None = None
    spec: Json = field(default_factory=dict)
    settings: Json = field(default_factory=dict)


@dataclass(frozen=True)
class Line:
    """The cells of a row."""

    what: str
    says: str
    within: str
    then: str
    lost: str

    def __str__(self) -> str:
        """Return it as Markdown."""
        return f"| {self.what} | {self.says} | {self.within} | {self.then} | {self.lost} |"


def measure(fault: Fault) -> Line:
    """Return the row of a fault. Raises AssertionError if the job does not come to a good end."""
    found: list[Line] = []

    async def story(tell: Callable[[Day], Awaitable[None]]) -> None:
        day = Day(fault.spec, fault.settings)
        try:
            await _strike(day, fault)
            await tell(day)
        finally:
            await day.over()

    async def tell(day: Day) -> None:
        found.append(await _Story(fault, day).told())

    simulated(story(tell))
    if fault.mend is not None:
        simulated(story(partial(_mended, fault.mend)))
    return found[0]


def markdown(faults: Sequence[Fault]) -> str:
    """Return the table of some faults, measured."""
    lines = [f"| {' | '.join(HEAD)} |", "|" + "---|" * len(HEAD)]
    for fault in faults:
        try:
            lines.append(str(measure(fault)))
        except AssertionError as error:
            error.add_note(fault.what)
            raise
    return "\n".join(lines)


async def _mended(mend: Strike, day: Day) -> None:
    """The cause is taken away, and the attempt that waits goes on."""
    await day.seconds(MENDED_AFTER)
    over = day.attempts and day.attempts[-1]["state"] in ("Suspended", "Stopping")
    number = day.attempt + bool(over)
    mend(day)
    assert await day.until(lambda: day.trains() and day.step > 0, MENDED_LIMIT), day.status
    assert day.attempt == number, "it did not go on by itself"
    await day.end_well()
    await day.check_the_end()


async def _strike(day: Day, fault: Fault) -> None:
    if not fault.before:
        assert await day.until(lambda: day.step >= STRUCK_AT), day.status
    day.struck = day.now()
    fault.strike(day)
    if fault.again:
        day.world.polite = True
        day.world.delete_pod(day.pod(1), "EvictionByEvictionAPI")
        assert await day.until(lambda: day.attempt == 2), day.status
        day.struck = day.now()


class _Story:
    """A day and what status said in it, from the fault on."""

    def __init__(self, fault: Fault, day: Day) -> None:
        self._fault, self._day = fault, day
        self._said: dict[Reason, float] = {}

    async def told(self) -> Line:
        day = self._day
        self._number = day.attempt
        self._done = day.world.most_steps.get(self._number, 0)
        limit = MENDED_LIMIT if self._fault.mend else LIMIT
        await day.until(self._over, QUIET if self._fault.harmless else limit)
        self._take_in()
        then = self._then()
        lost = self._lost()
        if self._fault.harmless:
            assert (day.attempt, day.trains()) == (self._number, True), day.status
        if day.trains():
            await day.end_well()
        if day.finished():
            await day.check_the_end()
        return Line(self._fault.what, *self._first(), then, lost)

    def _over(self) -> bool:
        day = self._day
        again = (
            day.attempt > self._number
            and day.trains()
            and day.step > day.world.resumed[day.attempt]
        )
        return again or day.finished()

    def _take_in(self) -> None:
        for at, status in self._day.api.told:
            if at < self._day.struck:
                continue
            for reason in _reasons(status, self._number):
                self._said.setdefault(reason, self._since(at))

    def _since(self, at: datetime) -> float:
        return (at - self._day.struck).total_seconds() + self._fault.patience

    def _first(self) -> tuple[str, str]:
        for reason, seconds in self._said.items():
            return f"`{reason}`", _seconds(seconds)
        note = self._day.status.get("progress", {}).get("note")
        return ("a note in `status.progress`" if note else "nothing"), ""

    def _then(self) -> str:
        later = [f"`{r}` after {_seconds(s)}" for r, s in list(self._said.items())[1:]]
        outcome = ": ".join([*later, *self._outcome()])
        if self._fault.mend is None:
            return outcome
        mended = "goes on once mended"
        return f"{mended}, else {outcome}" if outcome else mended

    def _outcome(self) -> list[str]:
        day = self._day
        if day.attempt > self._number:
            ended = day.attempts[self._number - 1]
            begun = datetime.fromisoformat(day.attempts[self._number]["startTime"])
            kind = retry_of(Reason(ended["reason"]), bool(ended.get("lastStep")))
            counts = ", counts" if kind in COUNTED else ""
            when = _seconds(self._since(begun))
            return [f"attempt {self._number + 1} after {when}{self._changed()}{counts}"]
        match condition(day.world.job(), "Succeeded"):
            case "False":
                return ["job fails"]
            case "True":
                return ["job succeeds"]
        return ["goes on"] if day.trains() else []

    def _changed(self) -> str:
        """Return what status says that the next attempt has otherwise."""
        told = [c["message"] for _, s in self._day.api.told for c in s["conditions"]]
        found = next((m for m in map(WITH.search, told) if m), None)
        return f" with {found[1]}" if found else ""

    def _lost(self) -> str:
        """Return the steps that status calls lost, which are those that have to be done again."""
        day = self._day
        if self._fault.before or self._fault.again:
            return ""
        if day.attempt == self._number and not day.finished():
            return "0" if day.trains() else ""
        lost = day.attempts[self._number - 1].get("lostSteps", 0)
        saved = day.world.saved["step"] if day.world.saved else 0
        kept = day.world.resumed.get(self._number + 1, saved)
        done = day.world.most_steps[self._number]
        if condition(day.world.job(), "Succeeded") != "True":
            assert lost == done - kept, f"status says {lost}, but {done} were done and {kept} kept"
        return str(lost)


def _reasons(status: Json, number: int) -> list[Reason]:
    """Return what a status says that is no usual course."""
    ended = [a.get("reason") for a in status.get("attempts", []) if a["number"] >= number]
    told = [c["reason"] for c in status.get("conditions", []) if c["type"] == "Succeeded"]
    return [Reason(r) for r in (*ended, *told) if r and Reason(r) not in NEUTRAL]


def _seconds(seconds: float) -> str:
    return f"{max(1, math.ceil(seconds))} s"
