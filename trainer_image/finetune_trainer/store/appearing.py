"""Files that are there whole or not at all: made beside their place, then renamed.

Others may write into the same directory: names of what is being made can not be foreseen, and a
symbolic link is followed nowhere.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from finetune_contract.reasons import Reason
from finetune_trainer.process.errors import Failure
from finetune_trainer.process.waiting import waiting

log = logging.getLogger(__name__)

WAIT_SECONDS = 3000.0  # for a lock: a run that waits longer would count as stalled
WORD_SECONDS = 30.0  # between two words about it


@contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """Yield a path where a file or a directory is to be made that becomes `target` in the end.

    Nothing is left of it where making it fails.
    """
    partial = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    try:
        yield partial
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        partial.rename(target)
    finally:
        remove(partial)


@contextmanager
def alone(lock: Path, seconds: float = WAIT_SECONDS, word: float = WORD_SECONDS) -> Iterator[None]:
    """Hold a lock that other pods may hold; say so while it is waited for.

    Raises Failure: StorageUnavailable once it has been held for `seconds`.
    """
    held = FileLock(lock)
    _no_link(lock)
    if lock.is_dir():
        raise _misplaced(lock, "is a directory where a lock is to be")
    with waiting(seconds):
        _acquire(held, seconds, word)
    try:
        yield
    finally:
        held.release()


def _acquire(lock: FileLock, seconds: float, word: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            lock.acquire(timeout=max(0.0, min(word, deadline - time.monotonic())))
            return
        except Timeout:
            if time.monotonic() >= deadline:
                raise Failure(
                    Reason.STORAGE_UNAVAILABLE,
                    f"another process has held {lock.lock_file} for {seconds:.0f} s; see what "
                    "works there, or give the job another model.cache",
                ) from None
            log.warning("waits for %s, which another process holds", lock.lock_file)


def own_directory(path: Path) -> Path:
    """Make a directory, unless it is there, and return it; raise Failure where it is a link."""
    _no_link(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise _misplaced(path, "is no directory") from None
    return path


def remove(path: Path) -> None:
    """Remove a file, a link or a whole directory, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _no_link(path: Path) -> None:
    if os.path.islink(path):
        raise _misplaced(path, "is a symbolic link, which may lead anywhere")


def _misplaced(path: Path, what: str) -> Failure:
    return Failure(Reason.VERIFICATION_FAILED, f"{path} {what}: remove it from the cache")
