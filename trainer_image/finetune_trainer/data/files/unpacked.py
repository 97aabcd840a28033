"""The bytes of a file, those of gzip and Zstandard unpacked as they are read.

A packed file is read in constant memory, and no further than a real one could reach: what unpacks
to hundreds of times its size is made to fill a disk.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from finetune_trainer.data.faults import FileError, Kind

GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
SUFFIXES = (".gz", ".gzip", ".zst", ".zstd")
# A file may unpack to so much more: text of rows packs to a tenth, and of equal rows to a 50th.
MOST_TIMES, ALWAYS = 200, 64 * 2**20


def is_packed(path: Path) -> bool:
    """Tell whether a file is packed so that it is unpacked here."""
    with path.open("rb") as file:
        return file.read(len(ZSTD)).startswith((GZIP, ZSTD))


@contextmanager
def unpacked(path: Path) -> Iterator[io.BufferedReader]:
    """Yield a file's bytes; reading raises FileError where they are damaged, or far too many."""
    with path.open("rb") as file:
        magic = file.read(len(ZSTD))
        file.seek(0)
        if magic.startswith(GZIP):
            with gzip.GzipFile(fileobj=file) as stream:
                yield _bounded(stream, path)
        elif magic == ZSTD:
            import pyarrow  # type: ignore[import-untyped]

            with pyarrow.CompressedInputStream(file, "zstd") as stream:
                yield _bounded(stream, path)
        else:
            yield file


def _bounded(stream: Any, path: Path) -> io.BufferedReader:
    most = ALWAYS + MOST_TIMES * path.stat().st_size
    return io.BufferedReader(_Bounded(stream, most), buffer_size=2**20)


class _Bounded(io.RawIOBase):
    """What a stream unpacks, up to so many bytes."""

    def __init__(self, stream: Any, most: int) -> None:
        self._stream = stream
        self._left = most

    def readable(self) -> bool:
        """Be read from."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read as io.RawIOBase says."""
        try:
            found = self._stream.read(len(buffer))
        except EOFError as error:
            raise _damaged("is cut short") from error
        except (OSError, zlib.error) as error:
            cut = "Truncated" in str(error)
            raise _damaged("is cut short" if cut else "is damaged") from error
        self._left -= len(found)
        if self._left < 0:
            raise FileError(
                Kind.UNPACKS_TOO_FAR,
                f"unpacks to more than {MOST_TIMES} times its size; unpack it, if it is what you "
                "mean",
            )
        buffer[: len(found)] = found
        return len(found)


def _damaged(what: str) -> FileError:
    return FileError(
        Kind.DAMAGED_FILE, f"{what}: it can not be unpacked to its end; pack and upload it again"
    )
