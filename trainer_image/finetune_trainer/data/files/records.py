"""A file of any kind -> its rows, with the number by which its owner knows each.

That is the line of JSON Lines and CSV, and the row of Parquet and of a JSON array; all from 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

from finetune_contract.recipe import FileFormat
from finetune_trainer.data.faults import FileError, Kind, RowError
from finetune_trainer.data.files import json_array, parquet, table
from finetune_trainer.data.files.unpacked import GZIP, SUFFIXES, ZSTD, is_packed, unpacked
from finetune_trainer.data.lines import (
    HEAD_BYTES,
    UTF8_MARK,
    check_head,
    is_array,
    is_blank,
    numbered_lines,
    parse_line,
)

Note = Callable[[Kind, int | None, str], None]
Rows = Iterator[tuple[int, dict[str, Any] | RowError]]
Found = Iterator[tuple[int, dict[str, Any] | RowError | None]]  # None: a blank line
BY_NAME = {
    ".csv": FileFormat.CSV,
    ".tsv": FileFormat.TSV,
    ".parquet": FileFormat.PARQUET,
}
NOTED = 1000  # blank lines before the first row


def records(path: Path, name: str, file_format: FileFormat, note: Note) -> Rows:
    """Yield each row's number, and its object or what is wrong with it.

    `name` is the file's own, `note` is told what is worth a word and no fault. Raises FileError for
    what is wrong with the whole file, maybe after its last good row.
    """
    blank: list[int] | None = []  # until a row is seen
    for number, item in _found(path, name, file_format, note):
        if item is not None:
            for line in blank or ():
                _note_blank(note, line)
            blank = None
            yield number, item
        elif blank is None:
            _note_blank(note, number)
        elif len(blank) < NOTED:
            blank.append(number)
    if blank is not None:
        raise FileError(Kind.BLANK_FILE, "holds no row")


def count(path: Path, name: str, file_format: FileFormat) -> int:
    """Return how many rows a file has, or lines that may be rows; of a bad file those before."""
    number = 0
    try:
        with unpacked(path) as file:
            kind = _kind(file.peek(HEAD_BYTES)[:HEAD_BYTES], name, file_format)
            if kind is FileFormat.JSON_LINES:
                last = b"\n"
                while piece := file.read(2**20):
                    number += piece.count(b"\n")
                    last = piece[-1:]
                return number + (last != b"\n")
        if kind is FileFormat.PARQUET:
            return parquet.row_count(path)
        for _ in _found(path, name, kind, lambda *_: None):
            number += 1
    except FileError:
        pass  # told by whoever reads the rows
    return number


def _found(path: Path, name: str, file_format: FileFormat, note: Note) -> Found:
    with unpacked(path) as file:
        kind = _kind(file.peek(HEAD_BYTES)[:HEAD_BYTES], name, file_format)
        if kind is FileFormat.PARQUET:
            if is_packed(path):
                raise FileError(
                    Kind.COMPRESSED, "is packed Parquet; unpack it, it is packed within"
                )
            yield from parquet.rows(path)
            return
        if file.peek(len(UTF8_MARK)).startswith(UTF8_MARK):
            file.read(len(UTF8_MARK))
            note(Kind.BYTE_ORDER_MARK, None, "begins with a byte-order mark, which is passed over")
        yield from _READERS[kind](file)


def is_streamed(head: bytes, name: str, file_format: FileFormat) -> bool:
    """Tell whether a file that begins like this can be read line by line as it arrives.

    Raises FileError for what can not be read.
    """
    if head.startswith((GZIP, ZSTD)):
        return False
    return _kind(head[:HEAD_BYTES], name, file_format) is FileFormat.JSON_LINES


def _kind(head: bytes, name: str, file_format: FileFormat) -> FileFormat:
    """Return what a file is; raise FileError for what can not be read."""
    suffixes = PurePosixPath(name.lower()).suffixes
    if suffixes and suffixes[-1] in SUFFIXES:
        suffixes.pop()
    suffix = suffixes[-1] if suffixes else ""
    told = file_format
    if told is FileFormat.AUTO:
        is_parquet = head.startswith(parquet.MAGIC)
        told = FileFormat.PARQUET if is_parquet else BY_NAME.get(suffix, FileFormat.AUTO)
    if told is FileFormat.PARQUET and head:
        if not head.startswith(parquet.MAGIC):
            raise FileError(Kind.DAMAGED_FILE, "is no Parquet: its first bytes are others")
        return told
    check_head(head, is_table=told in _TABLES)
    if told is not FileFormat.AUTO:
        return told
    array = is_array(head, certain=suffix == ".json")
    return FileFormat.JSON if array else FileFormat.JSON_LINES


def _json_lines(file: IO[bytes]) -> Found:
    for number, line in numbered_lines(file):
        yield number, None if is_blank(line) else parsed(line)


def _json_array(file: IO[bytes]) -> Found:
    for number, element in json_array.elements(file):
        yield number, parsed(element)


def parsed(line: bytes) -> dict[str, Any] | RowError:
    """Return the JSON object of a line, or what is wrong with it."""
    try:
        return parse_line(line)
    except RowError as error:
        return error


def _note_blank(note: Note, line: int) -> None:
    note(Kind.BLANK_LINE, line, "is blank, and passed over")


_TABLES = (FileFormat.CSV, FileFormat.TSV)
_READERS: dict[FileFormat, Callable[[IO[bytes]], Found]] = {
    FileFormat.JSON_LINES: _json_lines,
    FileFormat.JSON: _json_array,
    FileFormat.CSV: partial(table.records, separator=None),
    FileFormat.TSV: partial(table.records, separator=table.TAB),
}
