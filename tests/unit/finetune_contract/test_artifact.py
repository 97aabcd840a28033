"""Manifests and pointers have one text each, so that equal ones have equal digests."""

from __future__ import annotations

import hashlib

import pytest
from pydantic import ValidationError

from finetune_contract.artifact import (
    VERSION,
    FileEntry,
    Manifest,
    ModelIdentity,
    Provenance,
    RunIdentity,
    TrainingSummary,
    artifact_path,
)
from finetune_contract.checkpoint import checkpoint_path
from finetune_contract.progress import Phase, Progress

DIGEST = "sha256:" + "a" * 64
MANIFEST = Manifest(
    version=VERSION,
    run=RunIdentity(name="job", uid="u", attempt=2),
    provenance=Provenance(
        recipe_digest=DIGEST, model=ModelIdentity(uri="hf://a/b", revision="c"), datasets=()
    ),
    training=TrainingSummary(steps=1, published_step=1, supervised_tokens=2, final_loss=0.5),
    files=(
        FileEntry(path="a", sha256=DIGEST, bytes=3),
        FileEntry(path="b", sha256=DIGEST, bytes=4),
    ),
)


def test_the_digest_is_of_the_bytes_that_are_written() -> None:
    data = MANIFEST.encode()
    assert Manifest.model_validate_json(data) == MANIFEST
    assert Manifest.model_validate_json(data).encode() == data
    assert MANIFEST.digest() == "sha256:" + hashlib.sha256(data).hexdigest()
    assert MANIFEST.total_bytes == 7


def test_an_artifact_has_files_with_whole_digests() -> None:
    with pytest.raises(ValidationError):
        Manifest.model_validate({**MANIFEST.model_dump(), "files": []})
    with pytest.raises(ValidationError):
        FileEntry(path="a", sha256="sha256:abc", bytes=1)


def test_each_start_of_an_attempt_has_a_prefix_of_its_own() -> None:
    assert artifact_path("uid", 3, "c0ffee") == "runs/uid/a3/c0ffee/artifact"
    assert checkpoint_path("uid", 3, "c0ffee", 20) == "runs/uid/a3/c0ffee/checkpoints/00000020"


def test_progress_in_a_column() -> None:
    assert Progress(phase=Phase.TRAIN, done=23, total=60).summary() == "Train 23/60"
    assert Progress(phase=Phase.LOAD).summary() == "Load"
