"""The structural check: files -> good rows one by one, every other row noted. Stdlib only.

It needs no model and holds no rows: `finetune data check` runs it on a laptop, and encoding runs it
on the way.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from finetune_contract.recipe import DataFormat, FileFormat
from finetune_trainer.data.duplicates import DuplicateFinder, Place
from finetune_trainer.data.faults import FileError, Findings, Kind, RowError
from finetune_trainer.data.files.records import count, records
from finetune_trainer.data.reading.reader import RowReader
from finetune_trainer.data.rows import Row, row_key

LINES_PER_REPORT = 256


@dataclass(frozen=True)
class DataFile:
    """One data file that lies on this machine's disk."""

    uri: str
    path: Path
    format: DataFormat
    lines: int  # or rows, of what has no lines
    sha256: str  # `sha256:<hex>`
    file_format: FileFormat = FileFormat.AUTO
    parts: tuple[tuple[str, Path], ...] = ()  # of a source of several files: URI and path of each

    @classmethod
    def joined(
        cls,
        uri: str,
        parts: Sequence[tuple[str, Path]],
        data_format: DataFormat,
        file_format: FileFormat = FileFormat.AUTO,
    ) -> DataFile:
        """Return the files of one source as one, whose rows stand one after the other."""
        each = [cls.counted(name, path, data_format, file_format) for name, path in parts]
        if [name for name, _ in parts] == [uri]:
            return each[0]
        listing = "".join(f"{one.uri} {one.sha256}\n" for one in each)
        digest = hashlib.sha256(listing.encode()).hexdigest()
        lines, path = sum(one.lines for one in each), parts[0][1]
        return cls(uri, path, data_format, lines, f"sha256:{digest}", file_format, tuple(parts))

    @classmethod
    def counted(
        cls,
        uri: str,
        path: Path,
        data_format: DataFormat,
        file_format: FileFormat = FileFormat.AUTO,
    ) -> DataFile:
        """Return a file with its number of lines, or rows, and its digest."""
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        lines = count(path, uri, file_format)
        return cls(uri, path, data_format, lines, f"sha256:{digest}", file_format)


@dataclass(frozen=True)
class CheckedRow:
    """A row without a structural fault: file and 1-based line, place in its source, key.

    The place counts from 0, and counts rows with faults; the key is `row_key`.
    """

    uri: str
    line: int
    place: int
    row: Row
    key: int


@dataclass(frozen=True)
class Counts:
    """A file's rows that are good, and all others."""

    good: int
    bad: int

    @property
    def rows(self) -> int:
        """Return how many there are."""
        return self.good + self.bad


Accept = Callable[[DataFile, CheckedRow], None]
OnLines = Callable[[int], None]
Reader = Callable[[dict[str, Any]], Row]  # raises RowError


def check_files(
    files: Sequence[DataFile],
    findings: Findings,
    accept: Accept,
    *,
    reader: Callable[[DataFormat], Reader] = RowReader,
    scratch: Path | None = None,
    eval_keys: Container[int] = frozenset(),
    on_lines: OnLines = lambda lines: None,
) -> tuple[Counts, ...]:
    """Hand every good row to `accept`, note all others, and return each file's counts.

    `accept` may refuse a row by RowError; a row whose template does not end is the last. `reader`
    makes what reads the rows of a file, `eval_keys` are of rows that must not be here, `scratch` is
    where the rows' keys lie meanwhile, `on_lines` is told how many lines have been read.
    """
    counts = [Counts(0, 0)] * len(files)
    lines_before = 0
    with TemporaryDirectory(dir=scratch, prefix="row-keys-") as keys:
        finder = DuplicateFinder(Path(keys))
        for number, file in enumerate(files):
            good = bad = 0
            for checked in _checked_rows(file, reader(file.format), findings, eval_keys):
                if checked is None or not _accepts(accept, file, checked, findings):
                    bad += 1
                    if Kind.TEMPLATE_ENDLESS in findings.counts:
                        return tuple(counts)  # the next row would take as long
                    continue
                findings.warn(checked.uri, checked.line, checked.row.warnings)
                findings.ignore(checked.row.ignored)
                finder.add(checked.key, Place(number, checked.line))
                good += 1
                if checked.place % LINES_PER_REPORT == LINES_PER_REPORT - 1:
                    on_lines(lines_before + checked.place + 1)
            counts[number] = Counts(good, bad)
            if not good and not findings.fatal:
                # Skipping all of a file can not be meant.
                findings.add(file.uri, None, Kind.NO_GOOD_ROW, "has no row that can be trained on")
            lines_before += file.lines
            on_lines(lines_before)
        _note_duplicates(finder, files, findings)
    return tuple(counts)


def _accepts(accept: Accept, file: DataFile, checked: CheckedRow, findings: Findings) -> bool:
    try:
        accept(file, checked)
    except RowError as error:
        findings.add(checked.uri, checked.line, error.kind, str(error))
        return False
    return True


def _checked_rows(
    file: DataFile, read: Reader, findings: Findings, eval_keys: Container[int]
) -> Iterator[CheckedRow | None]:
    """Yield every row of a source's files; None for one with a fault, which is noted."""
    place = 0
    for part in file.parts or ((file.uri, file.path),):
        for checked in _rows_of(file, part, read, findings, eval_keys):
            yield checked and replace(checked, place=place)
            place += 1


def _rows_of(
    file: DataFile,
    part: tuple[str, Path],
    read: Reader,
    findings: Findings,
    eval_keys: Container[int],
) -> Iterator[CheckedRow | None]:
    uri, path = part

    def note(kind: Kind, line: int | None, reason: str) -> None:
        findings.add(uri, line, kind, reason)

    try:
        for line, value in records(path, uri, file.file_format, note):
            try:
                if isinstance(value, RowError):
                    raise value
                row = read(value)
                key = row_key(row)
                if key in eval_keys:
                    raise RowError(Kind.OVERLAP_WITH_EVAL, "is in the eval data too")
            except RowError as error:
                findings.add(uri, line, error.kind, str(error))
                yield None
            else:
                yield CheckedRow(uri, line, 0, row, key)
    except FileError as error:
        findings.add(uri, None, error.kind, str(error))


def _note_duplicates(
    finder: DuplicateFinder, files: Sequence[DataFile], findings: Findings
) -> None:
    for row, first in finder.pairs():
        where = "" if first.file == row.file else f"{files[first.file].uri} "
        findings.add(
            files[row.file].uri, row.line, Kind.DUPLICATE_ROW, f"is {where}row {first.line} again"
        )
