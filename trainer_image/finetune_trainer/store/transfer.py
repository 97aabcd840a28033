"""Several files at once between disk and store: one request after the other leaves both idle."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from threading import Lock
from typing import TypeVar

from finetune_contract.artifact import FileEntry
from finetune_trainer.store.storage import OnBytes, Store, hash_file

T = TypeVar("T")
R = TypeVar("R")

FILES_AT_ONCE = 4


def upload_all(
    store: Store, base: str, directory: Path, on_bytes: OnBytes
) -> tuple[FileEntry, ...]:
    """Upload the files below a directory to below `base`; return what a manifest says of them."""
    counted = one_at_a_time(on_bytes)

    def upload(source: Path) -> FileEntry:
        path, size = source.relative_to(directory).as_posix(), source.stat().st_size
        digest = hash_file(source)
        store.upload(f"{base}/{path}", source)
        counted(size)
        return FileEntry(path=path, sha256=digest, bytes=size)

    return tuple(at_once(upload, sorted(p for p in directory.rglob("*") if p.is_file())))


def at_once(work: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Return what `work` makes of the items, in their order, some of them at a time.

    After a failure nothing more is begun; what is under way is waited for.
    """
    with ThreadPoolExecutor(FILES_AT_ONCE, thread_name_prefix="transfer") as pool:
        futures = [pool.submit(work, item) for item in items]
        done, waiting = wait(futures, return_when=FIRST_EXCEPTION)
        for future in waiting:
            future.cancel()
        for future in done:
            future.result()
        return [future.result() for future in futures]


def one_at_a_time(on_bytes: OnBytes) -> OnBytes:
    """Return a counter that several threads may call."""
    lock = Lock()

    def counted(count: int) -> None:
        with lock:
            on_bytes(count)

    return counted
