"""Digests of large files on this machine: remembered from use to use, compared with what they are
to be."""

from __future__ import annotations

import hashlib
import re
import stat
from pathlib import Path

from finetune_trainer.store.appearing import appearing, own_directory
from finetune_trainer.store.storage import hash_file

DIRECTORY = "digests"
SHA256 = re.compile("sha256:[0-9a-f]{64}")
GIT_BLOB = re.compile("[0-9a-f]{40}")  # what the hub knows small files by


def digest_of(path: Path, cache: Path | None) -> str:
    """Return `sha256:<hex>` of a file.

    It is read once, and again when its size, its inode or one of its times has changed: a copy that
    keeps the time of modification does not keep that of the change.
    """
    if cache is None:
        return hash_file(path)
    file = path.stat()
    known_by = (path, file.st_ino, file.st_size, file.st_mtime_ns, file.st_ctime_ns)
    key = hashlib.sha256(repr(tuple(map(str, known_by))).encode()).hexdigest()
    remembered = own_directory(cache / DIRECTORY) / key
    if is_file(remembered):  # it appears by a rename
        return remembered.read_text()
    digest = hash_file(path)
    with appearing(remembered) as partial:
        partial.write_text(digest)
    return digest


def is_file(path: Path, size: int | None = None) -> bool:
    """Tell whether a path is a file itself, no link to one, of that size."""
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return stat.S_ISREG(found.st_mode) and size in (None, found.st_size)


def agrees(path: Path, digest: str, cache: Path | None) -> bool:
    """Tell whether a file has a digest: `sha256:<hex>`, or the id of a git blob."""
    if SHA256.fullmatch(digest):
        return digest_of(path, cache) == digest
    assert GIT_BLOB.fullmatch(digest), digest
    content = path.read_bytes()
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False)
    return blob.hexdigest() == digest
