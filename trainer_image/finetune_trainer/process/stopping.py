"""SIGTERM and SIGINT: leave at once, or while training goes on, be asked and leave in time.

A Python signal handler would wait for the collective that the main thread is in, which waits for a
peer that may be gone. The C-level handler writes to a pipe that a thread reads. Torch-free.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from types import FrameType

from finetune_contract.reasons import Reason
from finetune_trainer.process.errors import Failure

STOPS = (signal.SIGTERM, signal.SIGINT)
# Shares of the grace period, counted from the signal; the rest is for the launcher's Result.
RANK_LEAVES = 0.85
TORCHRUN_KILLS = 0.95
TORCHRUN_VARIABLE = "TORCH_ELASTIC_SHUTDOWN_TIMEOUT"
TORCHRUN_SECONDS = 30.0  # that ranks have where it does not know the variable


class Stop:
    """Whether this process was told to stop, and what it does then.

    It leaves as soon as it is told; once postponed, only when the grace period is nearly over, so
    that the main thread can finish a checkpoint or a commit and end by itself. `leave` must end
    the process, and runs in a thread.
    """

    def __init__(self, grace_seconds: float, leave: Callable[[], None]) -> None:
        self.came = False
        self.leave = leave
        self._grace_seconds = kept_grace(grace_seconds)
        self._postponed = False

    def postpone(self) -> None:
        """From now on, wait for the main thread to end the process."""
        self._postponed = True

    def listen(self) -> None:
        """Hear the signals from now on."""
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        for number in STOPS:
            signal.signal(number, _nothing)

        def watch() -> None:
            while os.read(reading, 1)[0] not in STOPS:
                pass  # any signal that this process handles is told here, alarms among them
            self.came = True
            if self._postponed:
                time.sleep(RANK_LEAVES * self._grace_seconds)
            self.leave()

        Thread(target=watch, name="signals", daemon=True).start()


def kept_grace(grace_seconds: float) -> float:
    """Return how much of a pod's grace period the installed torchrun lets its ranks have."""
    found = find_spec("torch")  # which is not imported by this
    assert found is not None
    assert found.origin is not None
    launcher = Path(found.origin).parent / "distributed" / "launcher" / "api.py"
    known = TORCHRUN_VARIABLE in launcher.read_text()
    return grace_seconds if known else min(grace_seconds, TORCHRUN_SECONDS)


def interrupted(step: int | None = None) -> Failure:
    """Return the failure that a stop means, after `step` steps."""
    return Failure(Reason.INTERRUPTED, "the process was told to stop", step=step)


def _nothing(number: int, frame: FrameType | None) -> None:
    """Exist, so that the signal reaches the wake-up pipe and not its default action."""
