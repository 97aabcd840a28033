"""A rank's sign of life: that any rank of the run got on, and how long it may stay as it is.

What counts is a change of any rank's Progress, or that it is in a wait with a bound of its own:
while one downloads, the others wait for it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from threading import Thread

from finetune_contract.progress import Phase
from finetune_trainer.course.progress import Reporter
from finetune_trainer.process.sign import Sign, SignFile
from finetune_trainer.process.waiting import waits

BEAT_SECONDS = 2.0
STEPS = 20  # a step that takes longer than so many others is none
LEAST = 600.0
ROUNDED = 60  # seconds: so that what is told does not change with each step
# Seconds without any change: more than a run waits for a hub, a lock of the cache, a full store or
# a server that draws completions; and weights are read or merged without a word.
PATIENCE = {
    Phase.DOWNLOAD: 3600.0,
    Phase.LOAD: 3600.0,
    Phase.PREPARE: 3600.0,
    Phase.ROLLOUT: 3600.0,
    Phase.SCORE: 3600.0,
    Phase.TRAIN: 3600.0,  # until a step is measured
    Phase.EVALUATE: 1800.0,
    Phase.PUBLISH: 3600.0,
}

Exchange = Callable[[bool, float], tuple[int, float]]


def patience(phase: Phase, step_seconds: float | None) -> float:
    """Return after how many seconds without a change a run stands still; the second is how long a
    step takes, None before there was one."""
    if step_seconds is None:
        return PATIENCE[phase]
    least = LEAST if phase is Phase.TRAIN else PATIENCE[phase]
    return max(least, -(-STEPS * step_seconds // ROUNDED) * ROUNDED)


def start_pulse(
    reporter: Reporter, file: SignFile, exchange: Exchange, fixed: float | None
) -> None:
    """Give signs until this process ends. `exchange` tells the others whether this rank got on and
    for how long it may not, and returns what holds for all; `fixed` is the job's own bound."""

    def beat() -> None:
        moves = None
        while True:
            latest, before, moves = reporter.latest, moves, reporter.moves
            asked = fixed or patience(latest.phase, reporter.step_seconds)
            try:
                count, bound = exchange(moves != before or waits(), asked)
            except RuntimeError:
                return  # the store is gone, and with it the run
            reporter.pulsed(count, round(bound))
            file.write(Sign(os.getpid(), count, latest.phase, reporter.step, bound))
            time.sleep(BEAT_SECONDS)

    Thread(target=beat, name="pulse", daemon=True).start()
