"""What a container's first process does before its imports, which take seconds.

The standard library only: whoever imports this has not imported anything else yet.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import FrameType


def heed_sigterm() -> None:
    """End at SIGTERM, at once.

    The kernel keeps from PID 1 a signal that it has no handler for: what is told to stop while it
    still imports would miss it and go on to work until SIGKILL. Who has something to save puts a
    handler of its own in this one's place.
    """
    signal.signal(signal.SIGTERM, _leave)


def have_a_home() -> None:
    """Set HOME, as container runtimes do, for a user whom /etc/passwd does not know.

    Python's Path.home() raises without either.
    """
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = "/"


def _leave(number: int, frame: FrameType | None) -> None:
    # No clean-up: an exception in the middle of somebody's import may be swallowed there.
    os._exit(128 + number)
