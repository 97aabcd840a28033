"""What storage does without a server: file://, and telling obstore's errors apart."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from obstore.exceptions import GenericError

from finetune_contract.reasons import Reason
from finetune_trainer.process.errors import Failure
from finetune_trainer.store.storage import Role, Store, split_file_uri
from finetune_trainer.store.storage_errors import translated
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
    ("text", "reason"),
    [
        ("Error performing PUT http://169.254.169.254/latest", Reason.ACCESS_DENIED),
        ("Server returned non-2xx status code: 403 Forbidden", Reason.ACCESS_DENIED),
        ("Server returned non-2xx status code: 401 Unauthorized", Reason.ACCESS_DENIED),
        ("<Code>AccessDenied</Code>", Reason.ACCESS_DENIED),
        ("301: <Code>PermanentRedirect</Code>", Reason.ACCESS_DENIED),
        ("400: <Code>AuthorizationHeaderMalformed</Code>", Reason.ACCESS_DENIED),
        ("Permission denied (os error 13)", Reason.ACCESS_DENIED),
        ("No space left on device (os error 28)", Reason.DISK_FULL),
        ("<Code>NoSuchBucket</Code>", Reason.OUTPUT_NOT_FOUND),
        ("Server returned non-2xx status code: 404 Not Found", Reason.OUTPUT_NOT_FOUND),
        ("501 Not Implemented", Reason.STORAGE_UNSUPPORTED),
        ("<Code>NotImplemented</Code>", Reason.STORAGE_UNSUPPORTED),
        ("error sending request: canary", Reason.STORAGE_UNAVAILABLE),
    ],
)
def test_generic_errors_are_told_apart_and_not_quoted(text: str, reason: Reason) -> None:
    failure = told(text)
    assert failure.reason is reason
    assert "s3://bucket/path" in failure.message
    assert "canary" not in failure.message


def told(text: str) -> Failure:
    """Return what an error of obstore's becomes."""
    found = Reason.OUTPUT_NOT_FOUND
    with (
        pytest.raises(Failure) as caught,
        translated("s3://bucket/path", "spec.output", found, missing_is_failure=True),
    ):
        raise GenericError(text)
    return caught.value


def test_another_region_is_named_with_its_remedy() -> None:
    failure = told(
        "Received redirect without LOCATION, this normally indicates an incorrectly configured "
        "region"
    )
    assert failure.reason is Reason.ACCESS_DENIED
    remedy = "set AWS_REGION in the Secret of spec.output.credentialsSecretRef"
    assert remedy in failure.message


def test_the_directory_of_a_file() -> None:
    assert split_file_uri("s3://bucket/a/b.jsonl") == ("s3://bucket/a", "b.jsonl")
    assert split_file_uri("s3://bucket/b.jsonl") == ("s3://bucket", "b.jsonl")
