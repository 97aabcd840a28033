"""What storage does without a server: file://."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from finetune_contract.reasons import Reason
from finetune_trainer.process.errors import Failure
from finetune_trainer.store.storage import Role, Store, split_file_uri
from support.storage.store_contract import ConditionalWrites


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store((tmp_path / "a b").as_uri(), Role.OUTPUT)


def test_files_are_objects(store: Store, tmp_path: Path) -> None:
    assert store.list() == []
    store.write("x/y", b"1")
    (tmp_path / "z").write_bytes(b"22")
    store.upload("z", tmp_path / "z")
    entries = store.list()
    assert [(e.path, e.size) for e in entries] == [("x/y", 1), ("z", 2)]
    assert store.read_tagged("x/y") == (b"1", "sha256:" + hashlib.sha256(b"1").hexdigest())
    assert store.local_path("z").read_bytes() == b"22"
    assert store.read_tagged("none") is None


class TestConditionalWritesOfFiles(ConditionalWrites):
    """They hold for file:// too."""


@pytest.mark.parametrize("uri", ["gs://bucket/path", "s3:///path", "file://host/path", "/path"])
def test_other_uris_are_refused_by_name(uri: str) -> None:
    with pytest.raises(Failure) as caught:
        Store(uri, Role.OUTPUT)
    assert caught.value.reason is Reason.OUTPUT_NOT_FOUND
    assert uri in caught.value.message


@pytest.mark.parametrize(
    "uri",
    ["s3://id:canary@bucket/path", "s3://canary@bucket", "file:///path?canary", "s3://b/p#canary"],
)
def test_a_uri_with_a_secret_in_it_is_refused_and_not_shown(uri: str) -> None:
    with pytest.raises(Failure, match=r"keys go into spec\.output\.cred") as caught:
        Store(uri, Role.OUTPUT)
    assert "canary" not in caught.value.message


def test_the_directory_of_a_file() -> None:
    assert split_file_uri("s3://bucket/a/b.jsonl") == ("s3://bucket/a", "b.jsonl")
    assert split_file_uri("s3://bucket/b.jsonl") == ("s3://bucket", "b.jsonl")
