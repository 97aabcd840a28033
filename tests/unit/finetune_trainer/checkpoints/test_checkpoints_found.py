"""A checkpoint exists once its manifest does; what is damaged, foreign or torn is passed over."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from finetune_contract.artifact import MANIFEST
from finetune_contract.checkpoint import CheckpointManifest, CheckpointRef
from finetune_contract.reasons import Reason
from finetune_trainer.checkpoints.snapshot import BEST, STATE
from finetune_trainer.course.telemetry import METRICS
from finetune_trainer.process.errors import Failure
from finetune_trainer.store.storage import hash_file
from support.storage.publications import PROVENANCE
from support.trainer.checkpoints import Start, newest, place, saved, snapshot


def test_what_was_saved_is_found_whole(
    start: Start, tmp_path: Path, seen: list[CheckpointRef]
) -> None:
    assert start().newest(lambda snapshot: True) is None
    saved(start(), 3)
    manifest = CheckpointManifest.model_validate_json(
        (place(tmp_path, 1, 3) / MANIFEST).read_text()
    )
    assert manifest.provenance == PROVENANCE
    assert {entry.path for entry in manifest.files} == {STATE, BEST, "metrics.jsonl"}
    again = start(attempt=2)
    found, expected = again.newest(lambda snapshot: True), snapshot(3)
    assert found is not None
    assert found.state == expected.state
    assert found.history == expected.history
    assert found.moments.updates == 3
    for theirs, ours in (
        (found.weights, expected.weights),
        (found.best, expected.best),
        (found.moments.kinds["exp_avg"], expected.moments.kinds["exp_avg"]),
    ):
        assert theirs.keys() == ours.keys()
        assert all(torch.equal(theirs[name], ours[name]) for name in ours)
    ref = CheckpointRef(attempt=1, step=3, uri=place(tmp_path, 1, 3).as_uri())
    assert seen == [ref, ref]
    assert again.latest == ref


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


def foreign(path: Path) -> None:
    manifest = json.loads(path.read_text())
    manifest["provenance"]["model"]["revision"] = "def"
    path.write_text(json.dumps(manifest))


def escaping(path: Path) -> None:
    manifest = json.loads(path.read_text())
    manifest["files"][0]["path"] = "../../../../latest.json"
    path.write_text(json.dumps(manifest))


DAMAGE: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "altered": (STATE, flip, "state.safetensors was altered"),
    "cut": (STATE, lambda path: path.write_bytes(path.read_bytes()[:-9]), "bytes, its manifest"),
    "missing": (BEST, Path.unlink, "best.safetensors is missing"),
    "manifest cut": (MANIFEST, lambda path: path.write_text("{"), "not one of this version"),
    "foreign": (MANIFEST, foreign, "its model is another"),
    "escaping": (MANIFEST, escaping, "a file outside it"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_passed_over_by_name(
    start: Start, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    saved(start(), 2, 4)
    name, harm, told = DAMAGE[damage]
    harm(place(tmp_path, 1, 4) / name)
    assert newest(start(attempt=2)) == 2
    [message] = [m for m in caplog.messages if "passed over" in m]
    assert str(place(tmp_path, 1, 4).relative_to(tmp_path / "out")) in message
    assert told in message


def test_one_that_does_not_fit_the_model_is_passed_over(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    saved(start(), 2, 4)
    found = start(attempt=2).newest(lambda snapshot: snapshot.state.step < 4)
    assert found is not None
    assert found.state.step == 2
    assert "its tensors are not those of the model" in caplog.text


def test_a_torn_checkpoint_does_not_exist(start: Start, tmp_path: Path) -> None:
    saved(start(), 2, 4)
    (place(tmp_path, 1, 4) / MANIFEST).unlink()
    assert newest(start(attempt=2)) == 2


def test_a_store_that_fails_while_reading_is_no_damage(start: Start) -> None:
    def unavailable(request: str, path: str) -> None:
        if request == "chunks":
            raise Failure(Reason.STORAGE_UNAVAILABLE, "503")

    saved(start(), 2, 4)
    with pytest.raises(Failure, match="503"):
        newest(start(attempt=2, before=unavailable))


def test_one_that_vanishes_after_it_was_listed_is_passed_over(start: Start, tmp_path: Path) -> None:
    def swept(request: str, path: str) -> None:
        if request == "chunks":
            (place(tmp_path, 1, 2) / MANIFEST).unlink(missing_ok=True)

    saved(start(), 1, 2)
    assert newest(start(attempt=2, before=swept)) == 1


@pytest.mark.parametrize("other", [BEST, METRICS, None])
def test_whole_files_that_are_no_checkpoint_are_passed_over(
    start: Start, tmp_path: Path, other: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    saved(start(), 1, 2)
    directory = place(tmp_path, 1, 2)
    manifest = json.loads((directory / MANIFEST).read_text())
    entries = {entry["path"]: entry for entry in manifest["files"]}
    if other is None:
        del entries[STATE]
    else:
        data = (directory / other).read_bytes()
        (directory / STATE).write_bytes(data)
        entries[STATE] |= {"sha256": hash_file(directory / STATE), "bytes": len(data)}
    (directory / MANIFEST).write_text(json.dumps({**manifest, "files": list(entries.values())}))
    assert newest(start(attempt=2)) == 1
    assert "its files are not those of a checkpoint" in caplog.text


def test_the_newest_is_the_latest_attempts(start: Start) -> None:
    saved(start(), 2, 8)
    saved(start(attempt=2), 4)
    assert newest(start(attempt=2)) == 4  # its own, when it is started twice
    assert newest(start(attempt=3)) == 4
