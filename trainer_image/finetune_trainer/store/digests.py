"""sha256 of large files on this machine, remembered from attempt to attempt."""

from __future__ import annotations

import hashlib
from pathlib import Path

from finetune_trainer.store.appearing import appearing
from finetune_trainer.store.storage import hash_file

DIRECTORY = "digests"


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
    remembered = cache / DIRECTORY / key
    if remembered.exists():  # it appears by a rename
        return remembered.read_text()
    digest = hash_file(path)
    remembered.parent.mkdir(parents=True, exist_ok=True)
    with appearing(remembered) as partial:
        partial.write_text(digest)
    return digest
