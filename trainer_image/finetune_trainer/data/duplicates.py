"""Rows that stand more than once, found with a 64th of the rows' keys in memory at a time.

Keys are spread over files on disk by their value, so that equal ones meet in the same file; one
such file at a time is looked through.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PARTS = 64
_ENTRY = struct.Struct("<QIQ")  # key, file, line
_BUFFERED = 4096  # entries of one part kept before they are written


@dataclass(frozen=True, order=True)
class Place:
    """Where a row stands: the file's index and the 1-based line."""

    file: int
    line: int


class DuplicateFinder:
    """Takes the keys of rows, in order, and tells which came before; they lie in a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._waiting = [bytearray() for _ in range(PARTS)]

    def add(self, key: int, place: Place) -> None:
        """Take a row."""
        part = key % PARTS
        waiting = self._waiting[part]
        waiting += _ENTRY.pack(key, place.file, place.line)
        if len(waiting) >= _BUFFERED * _ENTRY.size:
            self._write(part)

    def pairs(self) -> Iterator[tuple[Place, Place]]:
        """Yield each row that came before, with the place where it first stood."""
        for part in range(PARTS):
            self._write(part)
            first: dict[int, Place] = {}
            for key, file, line in _ENTRY.iter_unpack(self._path(part).read_bytes()):
                place = Place(file, line)
                earlier = first.setdefault(key, place)
                if earlier is not place:
                    yield place, earlier

    def _write(self, part: int) -> None:
        with self._path(part).open("ab") as file:
            file.write(self._waiting[part])
        self._waiting[part].clear()

    def _path(self, part: int) -> Path:
        return self._directory / f"{part:02}"
