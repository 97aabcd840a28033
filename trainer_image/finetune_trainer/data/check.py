"""The structural check: files -> good rows one by one, every other row noted. Stdlib only.

It needs no model and holds no rows: `finetune data check` runs it on a laptop, and encoding runs it
on the way.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from finetune_contract.recipe import DataFormat
from finetune_trainer.data.duplicates import DuplicateFinder, Place
from finetune_trainer.data.faults import FileError, Findings, Kind, RowError
from finetune_trainer.data.lines import HEAD_BYTES, check_head, numbered_lines, parse_line
from finetune_trainer.data.reading.reader import RowReader
from finetune_trainer.data.rows import Row, row_key

LINES_PER_REPORT = 256


@dataclass(frozen=True)
class DataFile:
    """One JSONL file that lies on this machine's disk."""

    uri: str
    path: Path
    format: DataFormat
    lines: int
    sha256: str  # `sha256:<hex>`

    @classmethod
    def counted(cls, uri: str, path: Path, data_format: DataFormat) -> DataFile:
        """Return a file with its number of lines and its digest."""
        digest, lines, last = hashlib.sha256(), 0, b"\n"
        with path.open("rb") as file:
            while chunk := file.read(2**20):
                digest.update(chunk)
                lines += chunk.count(b"\n")
                last = chunk[-1:]
        lines += last != b"\n"
        return cls(uri, path, data_format, lines, f"sha256:{digest.hexdigest()}")


@dataclass(frozen=True)
class CheckedRow:
    """A row without a structural fault: its 1-based line, its place among the file's rows, its key.

    The place counts from 0, and counts rows with faults; the key is `row_key`.
    """

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
                findings.warn(file.uri, checked.line, checked.row.warnings)
                findings.ignore(checked.row.ignored)
                finder.add(checked.key, Place(number, checked.line))
                good += 1
                if checked.line % LINES_PER_REPORT == 0:
                    on_lines(lines_before + checked.line)
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
        findings.add(file.uri, checked.line, error.kind, str(error))
        return False
    return True


def _checked_rows(
    file: DataFile, read: Reader, findings: Findings, eval_keys: Container[int]
) -> Iterator[CheckedRow | None]:
    """Yield every row of a file; None for one with a fault, which is noted."""
    with file.path.open("rb") as lines:
        try:
            check_head(lines.read(HEAD_BYTES))
            _check_not_blank(file.path)
        except FileError as error:
            findings.add(file.uri, None, error.kind, str(error))
            return
        lines.seek(0)
        for place, (line, text) in enumerate(numbered_lines(lines)):
            try:
                row = read(parse_line(text))
                key = row_key(row)
                if key in eval_keys:
                    raise RowError(Kind.OVERLAP_WITH_EVAL, "is in the eval data too")
            except RowError as error:
                findings.add(file.uri, line, error.kind, str(error))
                yield None
            else:
                yield CheckedRow(line, place, row, key)


def _note_duplicates(
    finder: DuplicateFinder, files: Sequence[DataFile], findings: Findings
) -> None:
    for row, first in finder.pairs():
        where = "" if first.file == row.file else f"{files[first.file].uri} "
        findings.add(
            files[row.file].uri, row.line, Kind.DUPLICATE_ROW, f"is {where}row {first.line} again"
        )


def _check_not_blank(path: Path) -> None:
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            if not chunk.isspace():
                return
    raise FileError(Kind.BLANK_FILE, "holds white space only")
