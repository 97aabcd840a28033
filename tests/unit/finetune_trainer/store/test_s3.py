"""Storage against a real S3 server that checks credentials and conditions."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune_contract.reasons import Reason
from finetune_contract.recipe import DataSource, ModelRecipe
from finetune_local import s3
from finetune_trainer.process.errors import Failure
from finetune_trainer.store.artifacts import open_artifact
from finetune_trainer.store.publish import Output
from finetune_trainer.store.sources import fetch_data, fetch_model, resolve_model
from finetune_trainer.store.storage import CHUNK_BYTES, Role, Store
from support.storage.publications import PROVENANCE, SUMMARY
from support.storage.s3_server import s3_server, write_keys
from support.storage.store_contract import ConditionalWrites
from support.trainer.runs import run_config

CANARY = "canary-secret-55"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[s3.S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def secret(server: s3.S3Server, tmp_path: Path) -> str:
    return write_keys(tmp_path / "secret", server)


@pytest.fixture
def store(secret: str, tmp_path: Path) -> Store:
    bucket = "b" + hashlib.sha256(str(tmp_path).encode()).hexdigest()[:20]
    return Store(f"s3://{bucket}/some/where", Role.DATA, secret)


def failure_of(action: object, *arguments: object) -> Failure:
    assert callable(action)
    with pytest.raises(Failure) as caught:
        action(*arguments)
    assert CANARY not in caught.value.message
    return caught.value


def test_objects_are_written_listed_and_read(store: Store, tmp_path: Path) -> None:
    large = os.urandom(2 * CHUNK_BYTES + 5)
    (tmp_path / "large").write_bytes(large)
    store.upload("a/large", tmp_path / "large")
    store.write("a/small", b"x")
    store.write("b", b"")
    entries = store.list()
    assert [(e.path, e.size) for e in entries] == [
        ("a/large", len(large)),
        ("a/small", 1),
        ("b", 0),
    ]
    assert [e.path for e in store.list("a")] == ["a/large", "a/small"]
    assert store.read("a/large") == large
    assert len(list(store.chunks("a/large", entries[0].etag))) > 1
    assert store.read_range("a/large", 3, 4) == large[3:7]
    assert store.read_tagged("a/small") == (b"x", entries[1].etag)
    assert store.read_tagged("none") is None


def test_an_object_that_changed_since_it_was_listed_is_not_read(store: Store) -> None:
    store.write("a", b"1")
    [entry] = store.list()
    store.write("a", b"2")
    failure = failure_of(lambda: list(store.chunks("a", entry.etag)))
    assert failure.reason is Reason.STORAGE_UNAVAILABLE
    assert "a changed while it was read" in failure.message


class TestConditionalWritesOnS3(ConditionalWrites):
    """As the server answers them."""


def test_what_does_not_exist_is_named(store: Store, secret: str, tmp_path: Path) -> None:
    failure = failure_of(store.read, "train.jsonl")
    assert failure.reason is Reason.DATA_NOT_FOUND
    assert f"{store.uri}/train.jsonl does not exist" in failure.message
    source = DataSource(uri="s3://no-such-bucket/train.jsonl")
    failure = failure_of(fetch_data, source, tmp_path, secret, lambda count: None)
    assert failure.reason is Reason.DATA_NOT_FOUND
    failure = failure_of(resolve_model, ModelRecipe(uri=f"{store.uri}/model"), secret)
    assert failure.reason is Reason.MODEL_NOT_FOUND
    assert f"{store.uri}/model" in failure.message


@pytest.mark.parametrize("key", ["AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"])
@pytest.mark.parametrize("role", list(Role))
def test_wrong_credentials_are_named_by_their_field(
    server: s3.S3Server, tmp_path: Path, key: str, role: Role
) -> None:
    wrong = write_keys(tmp_path / "wrong", server, **{key: CANARY})
    store = Store("s3://bucket/path", role, wrong)
    for action in (store.list, lambda: store.read("x"), lambda: store.write_if("x", b"", None)):
        failure = failure_of(action)
        assert failure.reason is Reason.ACCESS_DENIED
        assert f"{role.field}.credentialsSecretRef" in failure.message


def test_models_are_fetched_once_and_known_by_their_files(
    store: Store, secret: str, tmp_path: Path
) -> None:
    files = {
        "config.json": b"{}",
        "model.safetensors": b"weights",
        "notes.md": b"",
        "x/y.json": b"",
    }
    for name, data in files.items():
        store.write(name, data)
    source = resolve_model(ModelRecipe(uri=store.uri), secret)
    assert [f.path for f in source.files] == ["config.json", "model.safetensors"]
    assert [f.path for f in source.small_files] == ["config.json"]
    counted: list[int] = []
    for _ in range(2):
        directory = fetch_model(source, source.files, tmp_path, secret, counted.append)
        assert (directory / "model.safetensors").read_bytes() == b"weights"
        assert sum(counted) == 9
        counted.clear()
        store.write("notes.md", b"changed")
    assert resolve_model(ModelRecipe(uri=store.uri), secret) == source
    store.write("model.safetensors", b"other")
    changed = resolve_model(ModelRecipe(uri=store.uri), secret)
    assert changed.identity.revision != source.identity.revision
    assert fetch_model(changed, changed.files, tmp_path, secret) != directory


def test_data_is_fetched(store: Store, secret: str, tmp_path: Path) -> None:
    store.write("train.jsonl", b"{}\n")
    counted: list[int] = []
    source = DataSource(uri=f"{store.uri}/train.jsonl")
    path = fetch_data(source, tmp_path / "data", secret, counted.append)
    assert path.read_bytes() == b"{}\n"
    assert counted == [3]
    assert [f.name for f in path.parent.iterdir()] == [path.name]


def test_an_artifact_goes_up_and_comes_back(store: Store, secret: str, tmp_path: Path) -> None:
    output_uri = f"{store.uri}/out"
    config = run_config(tmp_path, output=output_uri, credentials={"output": secret})
    source = tmp_path / "source"
    source.mkdir()
    (source / "adapter").write_text("weights")
    first = Output.claim(config.layout)
    second = Output.claim(config.layout.model_copy(update={"attempt": 2}))
    published = second.publish(source, PROVENANCE, SUMMARY, lambda count: None)
    with pytest.raises(Failure) as caught:
        first.publish(source, PROVENANCE, SUMMARY, lambda count: None)
    assert caught.value.reason is Reason.SUPERSEDED
    opened = open_artifact(output_uri, secret, tmp_path / "opened")
    assert (opened / "adapter").read_text() == "weights"
    Store(published.uri, Role.OUTPUT, secret).write("adapter", b"weighty")
    with pytest.raises(Failure, match="adapter was altered"):
        open_artifact(output_uri, secret, tmp_path / "opened")
