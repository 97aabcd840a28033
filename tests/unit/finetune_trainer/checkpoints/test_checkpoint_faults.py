"""What a checkpoint may not do to the run or to others: write elsewhere, overtake, half vanish."""

from __future__ import annotations

from pathlib import Path
from threading import Event, Thread

import pytest

from finetune_contract.artifact import MANIFEST
from finetune_contract.checkpoint import CheckpointRef
from finetune_trainer.checkpoints.snapshot import STATE
from support.trainer.checkpoints import Start, newest, saved, snapshot


@pytest.mark.usefixtures("scratch_alone")
def test_nothing_is_written_but_in_the_scratch_directory(start: Start, tmp_path: Path) -> None:
    saved(start(), 2)
    assert newest(start(attempt=2)) == 2
    assert not list((tmp_path / "scratch").iterdir())


def test_a_checkpoint_does_not_overtake_the_one_before(
    start: Start, seen: list[CheckpointRef]
) -> None:
    go_on = Event()

    def slow(request: str, path: str) -> None:
        if request == "upload" and "00000001" in path:
            go_on.wait()

    checkpoints = start(before=slow)
    checkpoints.save(snapshot(1))
    second = Thread(target=saved, args=(checkpoints, 2))
    second.start()
    second.join(0.1)
    go_on.set()
    second.join()
    assert [ref.step for ref in seen] == [1, 2]


def test_what_is_swept_is_torn_before_it_is_gone(start: Start) -> None:
    deleted: list[str] = []

    def note(request: str, path: str) -> None:
        if request == "delete":
            deleted.append(path)

    saved(start(before=note, keep=1), 1, 2)
    swept = [path for path in deleted if "00000001" in path]
    assert swept[0].endswith(MANIFEST)
    assert any(path.endswith(STATE) for path in swept)


def test_the_first_step_may_be_saved(start: Start) -> None:
    assert start(everySteps=1, everyMinutes=None).due(1)
