"""How long a run may stay as it is follows from what it does and how long its steps take."""

from __future__ import annotations

from pathlib import Path
from threading import Event

import pytest

from finetune_contract.progress import Phase
from finetune_trainer.course.progress import Reporter
from finetune_trainer.course.pulse import PATIENCE, patience, start_pulse
from finetune_trainer.lead import PATIENCE_SECONDS, PAUSE_SECONDS
from finetune_trainer.process.sign import SignFile
from finetune_trainer.process.waiting import waiting
from finetune_trainer.rollout.server import Limits
from finetune_trainer.store.appearing import WAIT_SECONDS
from finetune_trainer.store.hub import LONGEST_REST, Repository


@pytest.mark.parametrize(
    ("phase", "step", "seconds"),
    [
        (Phase.TRAIN, None, 3600),
        (Phase.TRAIN, 0.5, 600),
        (Phase.TRAIN, 31.0, 660),
        (Phase.TRAIN, 400.0, 8040),
        (Phase.ROLLOUT, 1.0, 3600),
        (Phase.ROLLOUT, 900.0, 18_000),
    ],
)
def test_patience_follows_phase_and_steps(phase: Phase, step: float | None, seconds: int) -> None:
    assert patience(phase, step) == seconds


def test_every_phase_has_its_patience() -> None:
    assert PATIENCE.keys() == set(Phase)


def test_what_a_phase_waits_for_gives_up_before_the_run_counts_as_stalled() -> None:
    for phase in (Phase.DOWNLOAD, Phase.PREPARE):
        assert PATIENCE[phase] > WAIT_SECONDS
    assert PATIENCE[Phase.DOWNLOAD] > Repository.patience + LONGEST_REST
    assert PATIENCE[Phase.PUBLISH] > PATIENCE_SECONDS + PAUSE_SECONDS
    assert PATIENCE[Phase.ROLLOUT] > Limits().pause


@pytest.mark.parametrize("wait", [60.0, 0.0], ids=["in a wait", "in none"])
def test_what_all_ranks_got_on_is_reported_and_signed(tmp_path: Path, wait: float) -> None:
    reporter, over = Reporter(), Event()
    answers, told = [(7, 660.0)], []

    def exchange(moved: bool, seconds: float) -> tuple[int, float]:
        told.append(moved)
        if answers:
            return answers.pop()
        over.set()
        raise RuntimeError("the store is gone")

    file = SignFile(tmp_path, 0)
    with waiting(wait):
        start_pulse(reporter, file, exchange, None)
        assert over.wait(50)
    assert told == [True, wait > 0], "it gets on while it waits for something with a bound"
    assert (reporter.latest.moves, reporter.latest.stall_timeout_seconds) == (7, 660)
    sign = file.read()
    assert sign is not None
    assert (sign.moves, sign.patience) == (7, 660.0)
