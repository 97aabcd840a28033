"""When checkpoints are written, which are kept, and what a failed one does."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from finetune_contract.checkpoint import CheckpointRef
from finetune_contract.reasons import Reason
from finetune_trainer.checkpoints.snapshot import STATE
from finetune_trainer.process.errors import Failure
from support.storage.meddled_store import Before
from support.storage.publications import PROVENANCE
from support.trainer.checkpoints import Start, newest, place, present, saved, snapshot


def unavailable(request: str) -> Before:
    """Return what fails these requests."""

    def before(asked: str, path: str) -> None:
        if asked == request:
            raise Failure(Reason.STORAGE_UNAVAILABLE, "503")

    return before


@pytest.mark.parametrize(("keep", "left"), [(1, [6]), (2, [4, 6]), (5, [2, 4, 6])])
def test_the_newest_complete_ones_are_kept(
    start: Start, tmp_path: Path, keep: int, left: list[int]
) -> None:
    saved(start(keep=keep), 2, 4, 6)
    assert present(tmp_path) == [(1, step) for step in left]
    directories = place(tmp_path, 1, 2).parent.iterdir()
    assert sorted(int(path.name) for path in directories) == left  # nothing of the others


def test_attempts_share_keep_and_sweep_what_was_torn(start: Start, tmp_path: Path) -> None:
    saved(start(), 2, 4)
    for step in (3, 5):
        place(tmp_path, 1, step).mkdir()
        (place(tmp_path, 1, step) / STATE).write_bytes(b"half")
    second = start(attempt=2)
    # A later attempt is at work: nothing of it is touched.
    later = tmp_path / "out/runs/uid-1/a3/c0ffee/checkpoints/00000001"
    later.mkdir(parents=True)
    (later / STATE).write_bytes(b"being written")
    saved(second, 6)
    assert present(tmp_path) == [(1, 4), (2, 6)]
    assert not place(tmp_path, 1, 3).exists()
    assert not place(tmp_path, 1, 5).exists()
    assert (later / STATE).exists()


def test_those_of_another_provenance_are_kept(start: Start, tmp_path: Path) -> None:
    saved(start(), 2, 4)
    other = PROVENANCE.model_copy(update={"recipe_digest": f"sha256:{9:064x}"})
    saved(start(attempt=2, provenance=other, keep=1), 1, 3)
    assert present(tmp_path) == [(1, 2), (1, 4), (2, 3)]


def test_an_attempt_that_lost_its_claim_writes_and_deletes_nothing(
    start: Start, tmp_path: Path, notes: list[str | None]
) -> None:
    first = start(keep=1)
    saved(first, 2)
    assert first.superseded is None
    start(attempt=2)
    saved(first, 4)
    assert present(tmp_path) == [(1, 2)]
    assert first.superseded is not None
    assert first.superseded.reason is Reason.SUPERSEDED
    assert "was claimed by attempt 2" in first.superseded.message
    assert notes == [None]


def test_an_attempt_that_loses_its_claim_while_it_writes_deletes_nothing(
    start: Start, tmp_path: Path
) -> None:
    def overtaken(request: str, path: str) -> None:
        if request == "upload" and "00000004" in path:
            start(attempt=2)

    first = start(keep=1, before=overtaken)
    saved(first, 2, 4)
    assert present(tmp_path) == [(1, 2), (1, 4)]
    assert first.superseded is not None


def test_a_store_that_does_not_tell_of_the_claim_ends_nothing(
    start: Start, notes: list[str | None]
) -> None:
    checkpoints = start(before=unavailable("read_tagged"))
    saved(checkpoints, 2)
    assert checkpoints.superseded is None
    assert notes == ["checkpoint of step 2 failed, training goes on: 503"]


def test_a_failed_write_is_told_and_tried_again(
    start: Start,
    tmp_path: Path,
    seen: list[CheckpointRef],
    notes: list[str | None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    checkpoints = start(everySteps=2, everyMinutes=None)
    saved(checkpoints, 2)
    blocked = place(tmp_path, 1, 4)
    blocked.write_text("a file where a directory must be")
    with caplog.at_level(logging.WARNING):
        saved(checkpoints, 4)
    assert "checkpoint of step 4 failed, training goes on" in caplog.text
    assert notes[0] is None
    assert "checkpoint of step 4 failed, training goes on: " in str(notes[1])
    assert checkpoints.latest == seen[-1]
    assert seen[-1].step == 2
    assert present(tmp_path) == [(1, 2)]
    assert not checkpoints.due(5)
    assert checkpoints.due(6)
    saved(checkpoints, 6)
    assert seen[-1].step == 6
    assert notes[2:] == [None]


def test_no_fault_at_all_of_a_checkpoint_ends_its_thread_unheard(
    start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(request: str, path: str) -> None:
        if request == "paths" or "00000003" in path:
            raise BaseException("as libraries in Rust panic")

    checkpoints = start(before=broken)
    saved(checkpoints, 3)
    assert "checkpoint of step 3 failed, training goes on" in caplog.text
    no_tensor: Any = None
    checkpoints.save(replace(snapshot(2), weights={"a": no_tensor}))
    checkpoints.wait()
    assert "checkpoint of step 2 failed, training goes on" in caplog.text
    saved(checkpoints, 4)
    assert "old checkpoints are still there" in caplog.text
    assert present(tmp_path) == [(1, 4)]


def test_a_second_start_of_an_attempt_leaves_what_the_first_saved(
    start: Start, tmp_path: Path
) -> None:
    saved(start(), 2)
    second = start(before=unavailable("upload"))
    saved(second, 2)
    assert present(tmp_path) == [(1, 2)]
    assert newest(second) == 2


def test_the_next_waits_for_the_one_before(start: Start, tmp_path: Path) -> None:
    go_on = Event()

    def slow(request: str, path: str) -> None:
        if request == "upload":
            go_on.wait()

    checkpoints = start(before=slow, everySteps=1, everyMinutes=None)
    checkpoints.save(snapshot(1))
    assert not checkpoints.due(2)  # training goes on without one
    assert not present(tmp_path)
    go_on.set()
    checkpoints.wait()
    assert present(tmp_path) == [(1, 1)]
    assert checkpoints.due(2)


def test_time_comes_by_steps_or_minutes(start: Start) -> None:
    now = 1000.0
    by_steps = start(everySteps=5, everyMinutes=None)
    assert [step for step in range(8) if by_steps.due(step)] == [5, 6, 7]  # 5, or as soon as it can
    saved(by_steps, 7)
    assert [step for step in range(7, 12) if by_steps.due(step)] == [10, 11]
    by_minutes = start(clock=lambda: now, everySteps=None, everyMinutes=2)
    now += 500  # the model was loaded
    assert newest(by_minutes) == 7
    assert not by_minutes.due(8)
    now += 120
    assert by_minutes.due(8)
    assert not by_minutes.due(7)  # nothing was done since
    saved(by_minutes, 8)
    assert not by_minutes.due(9)
    assert not start(everySteps=None, everyMinutes=None).due(100)


def test_a_resumed_run_counts_from_its_checkpoint(start: Start) -> None:
    saved(start(), 4)
    again = start(attempt=2, everySteps=3, everyMinutes=None)
    assert newest(again) == 4
    assert not again.due(4)
    assert not again.due(5)
    assert again.due(6)
