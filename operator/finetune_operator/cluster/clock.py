"""The time by the API server's clock, which is what others' timestamps are compared with.

The machine of the operator may be wrong by minutes. Deadlines, start timeouts and back-offs would
then be too; every answer of the API server says what time it is there.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

log = logging.getLogger(__name__)

# Clocks that are kept by NTP differ by less, and a Date has whole seconds; within it, the time
# never jumps.
_TOLERANCE = timedelta(seconds=5)


def boot_clock() -> float:
    """Return seconds that go on while the machine sleeps, and that nobody sets."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def unset_clock() -> Callable[[], datetime]:
    """Return a clock that shows the machine's time of now, and later what has gone by since: a
    clock that is set, even for the moment until the next answer, can end no attempt."""
    began, booted = datetime.now(UTC), boot_clock()
    return lambda: began + timedelta(seconds=boot_clock() - booted)


class ServerClock:
    """This machine's clock, put right by what answers say."""

    def __init__(self, own: Callable[[], datetime] | None = None) -> None:
        self.own = own or unset_clock()
        self._ahead = timedelta(0)  # how far the server's clock is before this machine's

    def now(self) -> datetime:
        """Return the time."""
        return self.own() + self._ahead

    def hear(self, date: str | None, sent: datetime, came: datetime) -> None:
        """Take in the Date of an answer, which was written between two times of one's own clock.

        What that, give or take the tolerance, leaves possible is left as it is.
        """
        stamped = _parsed(date)
        if stamped is None:
            return
        least, most = stamped - came, stamped - sent
        possible = [a for a in (self._ahead, timedelta(0)) if _between(least, a, most)]
        ahead = possible[0] if possible else least
        if ahead != self._ahead:
            self._ahead = ahead
            seconds = round(ahead.total_seconds())
            log.warning("times are the API server's: this machine's clock + %d s", seconds)


def _between(least: timedelta, ahead: timedelta, most: timedelta) -> bool:
    return least - _TOLERANCE <= ahead <= most + _TOLERANCE


def _parsed(date: str | None) -> datetime | None:
    try:
        stamped = parsedate_to_datetime(date or "")
    except ValueError:
        return None
    return stamped if stamped.tzinfo else None
