"""What storage does without an S3 server: file://, and how a bucket that is slow is waited for."""

from __future__ import annotations

import hashlib
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import pytest
from obstore.exceptions import GenericError

from finetune_contract.reasons import Reason
from finetune_trainer.process.errors import Failure
from finetune_trainer.process.waiting import waits
from finetune_trainer.store.storage import Role, Store, split_file_uri
from finetune_trainer.store.storage_errors import Place, translated
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


@pytest.mark.parametrize(
    "words", ["No space left on device (os error 28)", "Disk quota exceeded (os error 122)"]
)
def test_a_disk_that_is_full_is_told_as_such(words: str) -> None:
    place = Place("file:///out", "spec.output", Reason.OUTPUT_NOT_FOUND)
    with pytest.raises(Failure) as caught, translated(place):
        raise GenericError(f"Generic LocalFileSystem error: {words}")
    assert caught.value.reason is Reason.DISK_FULL


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


class Asked(BaseHTTPRequestHandler):
    """A bucket that tells, before each part of an answer, whether who asks is in a wait."""

    waited: ClassVar[list[bool]] = []

    def note(self) -> None:
        deadline = time.monotonic() + 30
        while not waits() and time.monotonic() < deadline:
            time.sleep(0.01)
        self.waited.append(waits())

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.note()
        self.send_response(200)
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        self.note()
        self.send_response(200)
        for name, value in (("ETag", '"1"'), ("Content-Length", "4")):
            self.send_header(name, value)
        self.send_header("Last-Modified", "Sun, 01 Mar 2026 12:00:00 GMT")
        self.end_headers()
        self.wfile.flush()
        self.note()
        self.wfile.write(b"data")

    def log_message(self, *_: object) -> None:
        pass


def test_a_run_that_waits_for_a_store_does_not_stand_still(tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Asked) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "s"}
        keys["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{server.server_port}"
        for name, value in keys.items():
            (tmp_path / name).write_text(value)
        bucket = Store("s3://bucket/path", Role.OUTPUT, str(tmp_path))
        bucket.write("x", b"data")
        assert bucket.read("x") == b"data"
        server.shutdown()
    assert Asked.waited == [True] * 3
    assert not waits()
