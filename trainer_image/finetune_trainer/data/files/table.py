"""CSV and TSV (RFC 4180, in UTF-8) -> one object per record: the header's names, and text.

A cell without text is none. A cell of `messages`, `conversations` or `tools` holds JSON.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from typing import IO, Any

from finetune_trainer.data.faults import FileError, Kind, RowError
from finetune_trainer.data.lines import LONGEST_LINE, numbered_lines, parse_value

TAB = "\t"
SEPARATORS = (",", ";", TAB, "|")
LISTS = ("messages", "conversations", "tools")  # cells that are no text


def records(
    file: IO[bytes], separator: str | None
) -> Iterator[tuple[int, dict[str, Any] | RowError | None]]:
    """Yield the records by the line where each begins, from 1; None for a blank line.

    Without a separator it is the one that stands most often in the header. Raises FileError where
    quotes do not say any more what a record is.
    """
    csv.field_size_limit(LONGEST_LINE)
    lines = _lines(file)
    first = next(lines, "")
    found = separator or max(SEPARATORS, key=first.count)
    reader = csv.reader(_again(first, lines), delimiter=found, strict=True)
    header: list[str] | None = None
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise _broken(line, str(error)) from error
        if cells is None:
            return
        if header is None:
            header = _header(cells)
        elif not cells:
            yield line, None
        else:
            yield line, _record(header, cells, found)


def _lines(file: IO[bytes]) -> Iterator[str]:
    for number, line in numbered_lines(file):
        if len(line) > LONGEST_LINE:
            raise _broken(number, f"it is longer than {LONGEST_LINE >> 20} MiB")
        yield line.decode(errors="surrogateescape")


def _again(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


def _header(cells: list[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    twice = next((name for name in names if names.count(name) > 1 and name), None)
    if twice is not None:
        raise FileError(Kind.BAD_CSV, "has two columns of the same name in its header")
    if any("\udc80" <= character <= "\udcff" for name in names for character in name):
        raise FileError(Kind.NOT_UTF8_FILE, "has a header that is not UTF-8; save it as UTF-8")
    return names


def _record(header: list[str], cells: list[str], separator: str) -> dict[str, Any] | RowError:
    if len(cells) != len(header):
        told = {TAB: "a tab"}.get(separator, separator)
        return RowError(
            Kind.WRONG_CELLS,
            f"has {len(cells)} cells, the header has {len(header)}: quote text that holds {told}, "
            "a quote or a new line",
        )
    try:
        return {
            name: _value(name, cell)
            for name, cell in zip(header, cells, strict=True)
            if name and cell  # pandas writes its index in a column without a name
        }
    except RowError as error:
        return error


def _value(name: str, cell: str) -> Any:
    if "\0" in cell:
        raise RowError(Kind.CONTROL_CHARACTER, f"'{name}' holds NUL")
    if not cell.isascii():
        try:
            cell.encode()
        except UnicodeEncodeError as error:
            raise RowError(
                Kind.NOT_UTF8, f"a byte of '{name}' is not UTF-8; save the file as UTF-8"
            ) from error
    if name not in LISTS:
        return cell
    try:
        return parse_value(cell)
    except RowError as error:
        if error.kind is not Kind.BAD_JSON:
            raise
        raise RowError(
            Kind.BAD_JSON, f"'{name}' {error}; write the list with json.dumps, or as Parquet"
        ) from error


def _broken(line: int, why: str) -> FileError:
    """Return what the csv module means."""
    if "field larger" in why or "unexpected end" in why:
        why = "a quote is opened and not closed"
    elif "expected after" in why:
        why = 'a quote stands within quoted text; write it twice ("")'
    elif "new-line character" in why:
        why = "lines end with a carriage return alone; save it with line feeds"
    return FileError(Kind.BAD_CSV, f"can not be read as CSV from row {line} on: {why}")
