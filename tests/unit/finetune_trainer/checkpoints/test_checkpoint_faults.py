"""What a checkpoint may not do to the run or to others: write elsewhere, overtake, half vanish."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
import torch

from finetune_contract.artifact import MANIFEST, ModelIdentity, Provenance
from finetune_contract.checkpoint import CheckpointRef, TrainingState
from finetune_trainer.checkpoints.keeper import Checkpoints
from finetune_trainer.checkpoints.snapshot import BEST, STATE, Snapshot
from finetune_trainer.course.telemetry import METRICS
from finetune_trainer.step.optimizer_state import Moments
from finetune_trainer.store.publish import Output
from finetune_trainer.store.storage import Store, hash_file
from support.storage.publications import run_directory
from support.trainer.runs import run_config

PROVENANCE = Provenance(
    recipe_digest=f"sha256:{1:064x}", model=ModelIdentity(uri="hf://o/n", revision="a"), datasets=()
)
Start = Callable[..., Checkpoints]


@pytest.fixture
def seen() -> list[int]:
    return []


@pytest.fixture
def start(tmp_path: Path, seen: list[int]) -> Start:
    def note(ref: CheckpointRef) -> None:
        seen.append(ref.step)

    def start(attempt: int = 1, **policy: Any) -> Checkpoints:
        layout = run_config(tmp_path, attempt=attempt, checkpoint=policy).layout
        Path(layout.scratch_dir).mkdir(exist_ok=True)
        return Checkpoints(Output.claim(layout), PROVENANCE, layout, note)

    return start


def snapshot(step: int) -> Snapshot:
    weights = {"b": torch.ones(4)}
    state = TrainingState(step=step, supervised_tokens=1, loss=0.5)
    return Snapshot(state, weights, Moments(step, {}), best=weights, history=b'{"step":1}\n')


def saved(checkpoints: Checkpoints, *steps: int) -> None:
    for step in steps:
        checkpoints.save(snapshot(step))
        checkpoints.wait()


def newest(checkpoints: Checkpoints) -> int | None:
    found = checkpoints.newest(lambda snapshot: True)
    return found.state.step if found else None


def test_nothing_is_written_but_in_the_scratch_directory(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "read-only"))
    saved(start(), 2)
    assert newest(start(attempt=2)) == 2
    assert not list((tmp_path / "scratch").iterdir())


def test_a_checkpoint_does_not_overtake_the_one_before(
    start: Start, seen: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = start()
    go_on, upload = Event(), Store.upload

    def slow(self: Store, path: str, source: Path) -> None:
        if "00000001" in path:
            go_on.wait()
        upload(self, path, source)

    monkeypatch.setattr(Store, "upload", slow)
    checkpoints.save(snapshot(1))
    second = Thread(target=saved, args=(checkpoints, 2))
    second.start()
    second.join(0.1)
    go_on.set()
    second.join()
    assert seen == [1, 2]


def test_what_is_swept_is_torn_before_it_is_gone(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    deleted: list[str] = []
    delete = Store.delete

    def note(self: Store, path: str) -> None:
        deleted.append(path)
        delete(self, path)

    checkpoints = start(keep=1)
    saved(checkpoints, 1)
    monkeypatch.setattr(Store, "delete", note)
    saved(checkpoints, 2)
    swept = [path for path in deleted if "00000001" in path]
    assert swept[0].endswith(MANIFEST)
    assert any(path.endswith(STATE) for path in swept)


@pytest.mark.parametrize("other", [BEST, METRICS, None])
def test_whole_files_that_are_no_checkpoint_are_passed_over(
    start: Start, tmp_path: Path, other: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    saved(start(), 1, 2)
    directory = run_directory(tmp_path / "out") / "checkpoints/00000002"
    manifest = json.loads((directory / MANIFEST).read_text())
    entries = {entry["path"]: entry for entry in manifest["files"]}
    if other is None:
        del entries[STATE]
    else:
        data = (directory / other).read_bytes()
        (directory / STATE).write_bytes(data)
        entries[STATE] |= {"sha256": hash_file(directory / STATE), "bytes": len(data)}
    (directory / MANIFEST).write_text(json.dumps({**manifest, "files": list(entries.values())}))
    with caplog.at_level(logging.WARNING):
        assert newest(start(attempt=2)) == 1
    assert "its files are not those of a checkpoint" in caplog.text


def test_one_that_vanishes_after_it_was_listed_is_passed_over(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(start(), 1, 2)
    listed = Store.paths

    def swept(self: Store, prefix: str) -> list[str]:
        found = list(listed(self, prefix))
        (run_directory(tmp_path / "out") / "checkpoints/00000002" / MANIFEST).unlink()
        return found

    again = start(attempt=2)
    monkeypatch.setattr(Store, "paths", swept)
    assert newest(again) == 1


def test_the_first_step_may_be_saved(start: Start) -> None:
    assert start(everySteps=1, everyMinutes=None).due(1)
