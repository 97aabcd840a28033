"""Progress as the trainer keeps it: counters, the step at hand, notes; and who hears of it."""

from __future__ import annotations

import logging
from pathlib import Path
from threading import Event

import pytest

from finetune_contract.checkpoint import CheckpointRef
from finetune_contract.progress import Phase, Progress
from finetune_trainer.course.progress import Beat, Reporter, file_sink
from finetune_trainer.course.telemetry import StepRecord

PROGRESS = Progress(phase=Phase.TRAIN, done=3, total=9, loss=0.5)


def test_beats_go_on_and_end_with_the_last_word() -> None:
    reporter, seen, enough = Reporter(), list[Progress](), Event()

    def sink(progress: Progress) -> None:
        seen.append(progress)
        if len(seen) == 3:
            enough.set()

    beat = Beat(reporter, sink, 0.01)
    enough.wait()
    reporter.begin(Phase.PUBLISH, 7)
    reporter.advance(7)
    beat.close()
    assert seen[-1] == Progress(phase=Phase.PUBLISH, done=7, total=7)


def test_the_progress_file_is_replaced_whole(tmp_path: Path) -> None:
    sink = file_sink(tmp_path / "progress.json")
    for _ in range(2):
        sink(PROGRESS)
        assert Progress.model_validate_json((tmp_path / "progress.json").read_text()) == PROGRESS
    assert [f.name for f in tmp_path.iterdir()] == ["progress.json"]


def record(step: int, loss: float) -> StepRecord:
    return StepRecord(
        step=step,
        loss=loss,
        grad_norm=1.5,
        learning_rate=1e-4,
        tokens=100,
        supervised_tokens=40,
        seconds=2.0,
    )


def test_steps_are_counted_with_rate_and_time_left(caplog: pytest.LogCaptureFixture) -> None:
    reporter = Reporter()
    reporter.begin(Phase.TRAIN, 10)
    assert reporter.step == 1
    with caplog.at_level(logging.INFO):
        for step, loss in enumerate((4.0, 3.0, 2.0), start=1):
            reporter.trained(record(step, loss))
    assert reporter.latest == Progress(
        phase=Phase.TRAIN,
        done=3,
        total=10,
        step=3,
        loss=2.0,
        tokens_per_second=50.0,
        eta_seconds=14,
    )
    assert reporter.step == 4
    told = [message for message in caplog.messages if message.startswith("step")]
    assert told == ["step 1/10 loss 4.0000 grad norm 1.500, 50 tokens/s, 18 s left"]
    reporter.begin(Phase.PUBLISH)
    assert reporter.step == 3
    assert (reporter.latest.step, reporter.latest.loss) == (3, 2.0)
    assert (reporter.latest.tokens_per_second, reporter.latest.eta_seconds) == (None, None)


def test_an_evaluation_keeps_the_steps_counter() -> None:
    reporter = Reporter()
    reporter.begin(Phase.TRAIN, 10)
    reporter.resumed(4)
    reporter.trained(record(5, 3.0))
    before = reporter.latest
    with reporter.aside(Phase.EVALUATE, 7):
        reporter.advance(2)
        inside = reporter.latest
        assert (inside.phase, inside.done, inside.total, inside.step) == (Phase.EVALUATE, 2, 7, 5)
        assert reporter.step == 5
        checkpoint = CheckpointRef(attempt=1, step=4, uri="file:///c")
        reporter.checkpointed(checkpoint)
    assert reporter.latest == before.model_copy(update={"checkpoint": checkpoint})
    assert reporter.latest.resumed_step == 4
    reporter.evaluated(1.25)
    assert reporter.latest.eval_loss == 1.25


def test_a_run_from_the_beginning_was_not_resumed() -> None:
    reporter = Reporter()
    reporter.begin(Phase.TRAIN, 10)
    reporter.resumed(0)
    assert (reporter.latest.step, reporter.latest.resumed_step) == (0, None)


def test_before_training_there_is_no_step() -> None:
    reporter = Reporter()
    for phase in (Phase.DOWNLOAD, Phase.PREPARE, Phase.LOAD):
        reporter.begin(phase, 3)
        assert reporter.step is None


@pytest.mark.parametrize("phase", [Phase.ROLLOUT, Phase.SCORE])
def test_completions_are_made_for_the_step_under_way(phase: Phase) -> None:
    reporter = Reporter()
    reporter.begin(Phase.TRAIN, 10)
    reporter.resumed(4)
    with reporter.aside(phase, 16):
        reporter.advance(9)
        assert reporter.step == 5
    assert reporter.step == 5


def test_one_part_does_not_take_back_what_another_noted() -> None:
    reporter = Reporter()
    reporter.noted("checkpoints", "no checkpoint")
    reporter.noted("rewards", "waits")
    assert reporter.latest.note == "no checkpoint; waits"
    reporter.noted("checkpoints", "none yet")
    assert reporter.latest.note == "none yet; waits"
    reporter.noted("rewards", None)
    assert reporter.latest.note == "none yet"
    reporter.noted("rewards", None)
    reporter.noted("checkpoints", None)
    assert reporter.latest.note is None


def test_a_long_note_leaves_room_for_another() -> None:
    reporter = Reporter()
    reporter.noted("checkpoints", "a" * 600)
    assert reporter.latest.note == "a" * 500
    reporter.noted("rewards", "b" * 600)
    note = Progress.model_validate_json(reporter.latest.to_json()).note
    assert note == f"{'a' * 249}; {'b' * 249}"


def test_what_gets_on_is_counted_and_how_long_it_may_not_is_told() -> None:
    reporter, slow = Reporter(), record(1, 0.5)
    assert reporter.step_seconds is None
    for change in (lambda: reporter.advance(1), reporter.stirred, lambda: reporter.trained(slow)):
        before = reporter.moves
        change()
        assert reporter.moves > before
    before = reporter.moves
    reporter.pulsed(7, 660)
    assert (reporter.latest.moves, reporter.latest.stall_timeout_seconds) == (7, 660)
    assert reporter.moves == before, "that is no progress"
    assert reporter.step_seconds == slow.seconds
