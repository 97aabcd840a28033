"""Encoded rows as files that every process of a node maps into its memory.

`tokens` (int32), `learned` (one byte each), `offsets` (int64, one more than rows), `keys` (the
rows' `row_key`, uint64), `lines` and `places` (int64), little-endian and without a header.
`index.json`, written last, says how many rows each source has. The page cache holds what is in use,
so data may be larger than memory.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from finetune_contract.recipe import DataSource
from finetune_trainer.data.encode import EncodedRow

VERSION = 1  # to be raised whenever other files stand there, or others in them
INDEX = "index.json"
FILES = ("tokens", "learned", "offsets", "keys", "lines", "places")
DOCUMENTS, DOCUMENT_OFFSETS = "documents", "document_offsets"  # of prompts


@dataclass(frozen=True)
class Source:
    """One file's rows that can be trained on, in file order, and how often an epoch takes them.

    A row that is left out keeps its place, which stays empty: no other row moves.
    """

    rows: int
    weight: float = 1.0
    left_out: int = 0

    @property
    def places(self) -> int:
        """Return how many rows there are with those that are left out."""
        return self.rows + self.left_out

    @property
    def taken(self) -> int:
        """Return how many places an epoch takes."""
        return max(1, int(self.weight * self.places + 0.5))


@dataclass(frozen=True)
class Dataset:
    """Rows one after the other: tokens int32 [T], learned bool [T], offsets int64 [rows + 1]."""

    tokens: npt.NDArray[np.int32]
    learned: npt.NDArray[np.bool_]
    offsets: npt.NDArray[np.int64]
    lines: npt.NDArray[np.int64]  # of each row in its file, from 1
    places: npt.NDArray[np.int64]  # among the rows of its file, from 0, those left out counted too
    sources: tuple[Source, ...]
    directory: Path = Path()  # of the files, and of what a form keeps beside them

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def row(self, index: int) -> EncodedRow:
        """Return one row, without a copy."""
        span = slice(int(self.offsets[index]), int(self.offsets[index + 1]))
        return EncodedRow(self.tokens[span], self.learned[span])

    def source(self, index: int) -> int:
        """Return which source a row is of, from 0."""
        ends = np.cumsum([source.rows for source in self.sources])
        return int(np.searchsorted(ends, index, side="right"))

    def place(self, index: int) -> int:
        """Return a row's place among all rows of all sources, from 0; it stays whatever is left out
        of the others."""
        before = self.sources[: self.source(index)]
        return sum(source.places for source in before) + int(self.places[index])

    def lines_of(self, rows: Iterable[int], sources: Sequence[DataSource]) -> str:
        """Return in words which lines of which files rows stand in."""
        lines: dict[str, list[int]] = {}
        for index in rows:
            uri = sources[self.source(int(index))].uri
            lines.setdefault(uri, []).append(int(self.lines[index]))
        return "; ".join(
            f"{uri} rows {', '.join(map(str, sorted(found)))}" for uri, found in lines.items()
        )


@dataclass(frozen=True)
class Index:
    """What stands beside the tokens: rows kept and left out per file, warnings by kind.

    `ignored` counts the rows that have a key which means nothing, by its name.
    """

    rows: tuple[int, ...]
    left_out: tuple[int, ...]
    tokens: int
    skipped: int
    warnings: dict[str, int]
    ignored: dict[str, int]
    documents: int | None = None  # bytes that stand beside the tokens of prompts


class DatasetWriter:
    """Appends rows to a directory's files; memory does not grow with them."""

    def __init__(self, directory: Path, more: tuple[str, ...] = ()) -> None:
        assert sys.byteorder == "little", "the files are little-endian"
        self._directory = directory
        self._files = {name: (directory / name).open("wb") for name in (*FILES, *more)}
        self.tokens = 0  # written
        self._append("offsets", np.zeros(1, dtype=np.int64))

    def close(self) -> None:
        """Put on disk what was appended."""
        for file in self._files.values():
            file.close()

    def add(self, row: EncodedRow, key: int, line: int, place: int) -> None:
        """Append a row that stands in a line of its file, from 1, and there is the row `place`."""
        self.tokens += len(row.tokens)
        self._append("tokens", row.tokens)
        self._append("learned", row.learned)
        self._append("offsets", np.array([self.tokens], dtype=np.int64))
        self._append("keys", np.array([key], dtype=np.uint64))
        self._append("lines", np.array([line], dtype=np.int64))
        self._append("places", np.array([place], dtype=np.int64))

    def finish(self, index: Index) -> None:
        """Write the index, without which the directory holds no dataset."""
        self.close()
        (self._directory / INDEX).write_text(json.dumps(asdict(index)))

    def _append(self, name: str, values: npt.NDArray[np.generic]) -> None:
        file: IO[bytes] = self._files[name]
        file.write(values.tobytes())


def read_index(directory: Path) -> Index | None:
    """Return the index of a dataset; None if it is not there, or not whole."""
    path = directory / INDEX
    if not path.exists():
        return None
    fields = json.loads(path.read_bytes())
    lists = {name: tuple(fields[name]) for name in ("rows", "left_out")}
    index = Index(**{**fields, **lists})
    rows = sum(index.rows)
    sizes = {
        "tokens": 4 * index.tokens,
        "learned": index.tokens,
        "offsets": 8 * (rows + 1),
        "keys": 8 * rows,
        "lines": 8 * rows,
        "places": 8 * rows,
    }
    if index.documents is not None:
        sizes |= {DOCUMENTS: index.documents, DOCUMENT_OFFSETS: 8 * (rows + 1)}
    whole = all((directory / name).stat().st_size == size for name, size in sizes.items())
    return index if whole else None


def open_dataset(directory: Path, weights: Sequence[float]) -> Dataset:
    """Map a dataset into memory; one weight per file."""
    index = read_index(directory)
    assert index is not None, "only a finished dataset is opened"
    return Dataset(
        tokens=np.memmap(directory / "tokens", dtype=np.int32, mode="r"),
        learned=np.memmap(directory / "learned", dtype=np.bool_, mode="r"),
        offsets=np.memmap(directory / "offsets", dtype=np.int64, mode="r"),
        lines=np.memmap(directory / "lines", dtype=np.int64, mode="r"),
        places=np.memmap(directory / "places", dtype=np.int64, mode="r"),
        sources=tuple(map(Source, index.rows, weights, index.left_out)),
        directory=directory,
    )


def read_keys(directory: Path) -> frozenset[int]:
    """Return the keys of a dataset's rows."""
    return frozenset(np.fromfile(directory / "keys", dtype=np.uint64).tolist())
