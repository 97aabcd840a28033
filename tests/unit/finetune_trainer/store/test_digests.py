"""A file is read for its digest once, and again when it may be another."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from finetune_contract.recipe import ModelRecipe
from finetune_trainer.process.errors import Failure
from finetune_trainer.store.digests import DIRECTORY, digest_of
from finetune_trainer.store.sources import resolve_model
from finetune_trainer.store.storage import hash_file


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "model" / "model.safetensors"
    path.parent.mkdir()
    path.write_text("weights")
    return path


def remember(cache: Path, digest: str) -> int:
    """Put a digest in the place of all that are remembered; return how many they are."""
    remembered = list((cache / DIRECTORY).iterdir())
    for path in remembered:
        path.write_text(digest)
    return len(remembered)


def test_a_file_is_read_once(weights: Path, tmp_path: Path) -> None:
    assert digest_of(weights, tmp_path) == hash_file(weights)
    assert remember(tmp_path, "remembered") == 1
    assert digest_of(weights, tmp_path) == "remembered"


def test_nothing_is_remembered_where_a_link_leads(weights: Path, tmp_path: Path) -> None:
    (tmp_path / DIRECTORY).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Failure, match="is a symbolic link"):
        digest_of(weights, tmp_path)
    (tmp_path / DIRECTORY).unlink()
    digest_of(weights, tmp_path)
    [remembered] = (tmp_path / DIRECTORY).iterdir()
    remembered.rename(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").write_text("planted")
    remembered.symlink_to(tmp_path / "elsewhere")
    assert digest_of(weights, tmp_path) == hash_file(weights)
    assert (tmp_path / "elsewhere").read_text() == "planted"


def test_without_a_cache_it_is_read(weights: Path) -> None:
    assert digest_of(weights, None) == hash_file(weights)


def same_size(path: Path) -> None:
    path.write_text("weightz")


def with_the_old_time(path: Path) -> None:
    before = path.stat()
    path.write_text("weightz")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def renamed_over(path: Path) -> None:
    other = path.with_name("other")
    other.write_text("weightz")
    shutil.copystat(path, other)
    other.rename(path)


@pytest.mark.parametrize("change", [same_size, with_the_old_time, renamed_over])
def test_a_file_that_changed_is_read_again(weights: Path, tmp_path: Path, change: object) -> None:
    before = digest_of(weights, tmp_path / "cache")
    assert callable(change)
    change(weights)
    after = digest_of(weights, tmp_path / "cache")
    assert after == hash_file(weights) != before


def test_files_are_told_apart_by_their_place(weights: Path, tmp_path: Path) -> None:
    other = weights.with_name("tokenizer.json")
    os.link(weights, other)  # the same in all but its name
    assert digest_of(weights, tmp_path) == digest_of(other, tmp_path)
    assert remember(tmp_path, "remembered") == 2


def test_of_a_model_only_the_files_that_are_loaded_are_read_and_once(
    weights: Path, tmp_path: Path
) -> None:
    (weights.parent / "config.json").write_text("{}")
    (weights.parent / "consolidated.safetensors").write_text("the same again")
    (weights.parent / "runs").mkdir()
    (weights.parent / "runs" / "log.txt").write_text("of another program")
    recipe = ModelRecipe(uri=weights.parent.as_uri())
    first = resolve_model(recipe, None, cache=tmp_path / "cache")
    assert resolve_model(recipe, None) == resolve_model(recipe, None, cache=tmp_path / "cache")
    assert remember(tmp_path / "cache", "remembered") == 2
    again = resolve_model(recipe, None, cache=tmp_path / "cache")
    assert {file.path: file.etag for file in again.files} == {
        "config.json": "remembered",
        "model.safetensors": "remembered",
    }
    assert again.identity != first.identity
