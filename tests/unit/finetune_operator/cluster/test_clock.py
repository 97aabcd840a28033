"""The API server's time, out of the Dates of its answers and a clock of one's own."""

import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from finetune_operator.cluster.clock import ServerClock
from support.operator.values import NOW, at


class Machine:
    """A clock that shows NOW unless it is set, and what a server answers at a time of its own."""

    def __init__(self) -> None:
        self.shows = NOW
        self.clock = ServerClock(lambda: self.shows)

    def hears(self, seconds: float, took: float = 0.0) -> float:
        """Return by how many seconds the time is another than what the machine shows then."""
        stamped = at(seconds).replace(microsecond=0)
        self.clock.hear(
            format_datetime(stamped, usegmt=True), self.shows - timedelta(seconds=took), self.shows
        )
        return (self.clock.now() - self.shows).total_seconds()


@pytest.mark.parametrize("off", [900, -900, 7, -7])
def test_the_servers_time_is_taken_where_it_is_another(off: float) -> None:
    assert Machine().hears(off) == off


@pytest.mark.parametrize("off", [5, -5, 0.9])
def test_clocks_that_agree_are_left_as_they_are(off: float) -> None:
    assert Machine().hears(off) == 0


def test_an_answer_that_took_long_tells_no_more_than_that_it_was_written_meanwhile() -> None:
    assert Machine().hears(-29, took=30) == 0
    assert Machine().hears(-40, took=30) == -40


def test_the_time_does_not_jump_with_every_answer() -> None:
    machine = Machine()
    assert [machine.hears(off) for off in (900, 903, 897, 906)] == [900, 900, 900, 906]


def test_a_machine_that_is_put_right_goes_by_its_own_clock() -> None:
    machine = Machine()
    machine.hears(900)
    machine.shows = at(900)
    assert machine.hears(899.5) == 0


def test_a_clock_that_is_set_while_no_answer_comes_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The machine's time is looked at once."""
    booted = 1_000.0
    monkeypatch.setattr(time, "clock_gettime", {time.CLOCK_BOOTTIME: booted}.__getitem__)
    clock = ServerClock()
    began = clock.now()
    assert abs(began - datetime.now(UTC)) < timedelta(minutes=5)
    assert clock.now() == began
    monkeypatch.setattr(time, "clock_gettime", {time.CLOCK_BOOTTIME: booted + 7}.__getitem__)
    assert clock.now() == began + timedelta(seconds=7)


@pytest.mark.parametrize("date", [None, "", "soon", "Sun, 01 Mar 2026 13:00:00 -0000"])
def test_what_tells_no_time_changes_none(date: str | None) -> None:
    clock = ServerClock(lambda: NOW)
    clock.hear(date, NOW, NOW)
    assert clock.now() == NOW
