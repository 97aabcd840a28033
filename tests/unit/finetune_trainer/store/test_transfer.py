"""Several files at once: all of them, in order, and nothing more after a failure."""

from __future__ import annotations

import time
from itertools import count
from pathlib import Path
from threading import Barrier, Event

import pytest

from finetune_trainer.store.storage import Role, Store, hash_file
from finetune_trainer.store.transfer import FILES_AT_ONCE, at_once, upload_all


def test_results_keep_the_order_of_their_items() -> None:
    first = Event()

    def work(item: int) -> int:
        if item == 0:
            assert first.wait(30)
        else:
            first.set()
        return 10 * item

    assert at_once(work, range(3)) == [0, 10, 20]


def test_some_are_under_way_at_the_same_time() -> None:
    together = Barrier(FILES_AT_ONCE, timeout=30)
    at_once(lambda item: together.wait(), range(FILES_AT_ONCE))


def test_after_a_failure_nothing_is_begun() -> None:
    begun: list[int] = []
    failed = Event()

    def work(item: int) -> None:
        begun.append(item)
        if item == 0:
            failed.set()
            raise ValueError("first")
        assert failed.wait(30)
        time.sleep(0.05)  # or they are done before anyone has seen the failure

    with pytest.raises(ValueError, match="first"):
        at_once(work, range(500))
    assert len(begun) < 500


def test_a_directory_goes_up_with_what_a_manifest_says_of_it(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for number, name in zip(count(1), ("b", "a/x", "c"), strict=False):
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode() * number)
    store = Store((tmp_path / "bucket").as_uri(), Role.OUTPUT)
    counted: list[int] = []
    entries = upload_all(store, "base", source, counted.append)
    assert [(e.path, e.bytes) for e in entries] == [("a/x", 6), ("b", 1), ("c", 3)]
    assert sorted(counted) == [1, 3, 6]
    for entry in entries:
        assert entry.sha256 == hash_file(source / entry.path)
        assert store.read(f"base/{entry.path}") == (source / entry.path).read_bytes()
