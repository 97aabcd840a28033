"""Files that are there whole or not at all: made beside their place, then renamed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """Yield a path where a file or a directory is to be made that becomes `target` in the end.

    Nothing is left of it where making it fails.
    """
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    _remove(partial)
    try:
        yield partial
        partial.rename(target)
    finally:
        _remove(partial)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
