"""The first bytes of a file of text, and lines -> JSON objects, or what is wrong with them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import IO, Any

from finetune_trainer.data.faults import FileError, Kind, RowError

LONGEST_LINE = 16 * 2**20  # bytes
DEEPEST = 100
HEAD_BYTES = 4096

UTF8_MARK = b"\xef\xbb\xbf"
# UTF-32's little-endian mark begins with UTF-16's, so it stands first.
_WIDE_MARKS = {
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
_COMPRESSED = {
    b"PK\x03\x04": "zip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
}
_BINARY = {
    b"ARROW1": "Arrow",
    b"\xff\xff\xff\xff": "an Arrow stream",
    b"Obj\x01": "Avro",
    b"SQLite format 3\x00": "SQLite",
    b"\x89HDF": "HDF5",
    b"\x93NUMPY": "NumPy",
}


def check_head(head: bytes, *, is_table: bool = False) -> None:
    """Raise FileError if a file that begins like this is no text in UTF-8; or unless it `is_table`,
    no JSON.
    """
    if not head:
        raise FileError(Kind.EMPTY_FILE, "is empty")
    _check_encoding(head)
    for magic, name in _COMPRESSED.items():
        if head.startswith(magic):
            raise FileError(
                Kind.COMPRESSED, f"is packed with {name}; unpack it, or pack it with gzip or zstd"
            )
    for magic, name in _BINARY.items():
        if head.startswith(magic):
            raise FileError(Kind.BINARY_FORMAT, f"is {name}; export it as Parquet or JSON Lines")
    if not is_table:
        _check_layout(head.removeprefix(UTF8_MARK).lstrip())


def is_array(head: bytes, *, certain: bool) -> bool:
    """Tell whether a file that begins like this is one JSON array, no lines.

    Lines may be arrays, though none is a row; `certain` if nothing but an array is to be expected.
    """
    first = head.removeprefix(UTF8_MARK).lstrip().partition(b"\n")[0].rstrip()
    if certain or first == b"[":
        return first.startswith(b"[")
    return first.startswith(b"[") and first[1:].lstrip().startswith(b"{")


def is_blank(line: bytes) -> bool:
    """Tell whether a line has nothing but white space."""
    return line.isspace() and len(line) <= LONGEST_LINE


def numbered_lines(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield a file's lines, counted from 1; of a line that is too long only its beginning."""
    number = 0
    while line := file.readline(LONGEST_LINE + 1):
        number += 1
        yield number, line
        if len(line) > LONGEST_LINE:
            while line and not line.endswith(b"\n"):
                line = file.readline(LONGEST_LINE)


def parse_line(line: bytes) -> dict[str, Any]:
    """Return the JSON object of a line."""
    if len(line) > LONGEST_LINE:
        raise RowError(Kind.LINE_TOO_LONG, f"is longer than {LONGEST_LINE >> 20} MiB")
    text = _decode(line)
    value = parse_value(text)
    if not isinstance(value, dict):
        raise RowError(Kind.NOT_AN_OBJECT, "is not a JSON object")
    return value


def parse_value(text: str) -> Any:
    """Return the JSON value that a text is."""
    if text.count("[") + text.count("{") > DEEPEST and _depth(text) > DEEPEST:
        raise RowError(Kind.NESTED_TOO_DEEPLY, f"is nested deeper than {DEEPEST}")
    try:
        value = STRICT_JSON.decode(text)
    except json.JSONDecodeError as error:
        kind = Kind.CONTROL_CHARACTER if "control character" in error.msg else Kind.BAD_JSON
        raise RowError(kind, f"is not JSON: {error.msg} at column {error.colno}") from error
    except ValueError as error:  # Python's limit on digits
        raise RowError(Kind.BAD_JSON, "holds a number of thousands of digits") from error
    if "\\u" in text:
        _check_escapes(text, value)
    return value


def _check_encoding(head: bytes) -> None:
    if head.startswith(b"\xff\xff\xff\xff"):
        return
    wide = next((name for mark, name in _WIDE_MARKS.items() if head.startswith(mark)), None)
    if wide is None and b"\0" in head[:4]:  # JSON begins with ASCII, so zeros tell the width
        wide = "UTF-32" if head[:4].count(0) == 3 else "UTF-16" if head[:4].count(0) == 2 else None
    if wide:
        raise FileError(Kind.NOT_UTF8_FILE, f"is {wide}; save it as UTF-8")


def _check_layout(head: bytes) -> None:
    """Tell an object over several lines from JSON Lines, by the first line that is not blank."""
    first, _, rest = head.partition(b"\n")
    first = first.rstrip()
    opened = first.startswith(b"{") and first.endswith((b"{", b"[", b","))
    if opened and rest.startswith((b" ", b"\t")):
        raise FileError(
            Kind.PRETTY_PRINTED,
            "is pretty-printed: its first object runs over several lines; write one object per "
            "line, or an array of all objects",
        )


def _decode(line: bytes) -> str:
    if b"\0" in line:
        raise RowError(Kind.CONTROL_CHARACTER, f"byte {line.index(0) + 1} is NUL")
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RowError(
            Kind.NOT_UTF8, f"byte {error.start + 1} is not UTF-8; save the file as UTF-8"
        ) from error
    return text.rstrip("\r\n")


def _depth(text: str) -> int:
    """Return how deep brackets are nested, those in strings left out."""
    depth = deepest = 0
    in_string = escaped = False
    for character in text:
        if in_string:
            in_string = escaped or character != '"'
            escaped = character == "\\" and not escaped
        elif character == '"':
            in_string = True
        elif character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
    return deepest


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise RowError(Kind.DUPLICATE_KEY, "has an object with the same key twice")
    return value


def _no_constant(name: str) -> Any:
    raise RowError(Kind.NON_FINITE_NUMBER, f"holds {name}, which is not JSON")


# Raises RowError for what JSON leaves open or Python adds to it.
STRICT_JSON = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_no_constant)


def _check_escapes(text: str, value: Any) -> None:
    """Find what escapes can smuggle past UTF-8: NUL and halves of surrogate pairs."""
    lowered = text.lower()
    if "\\u0000" not in lowered and "\\ud" not in lowered:
        return
    for string in _strings(value):
        if "\0" in string:
            raise RowError(Kind.CONTROL_CHARACTER, r"holds the character \u0000")
        if any("\ud800" <= character <= "\udfff" for character in string):
            raise RowError(
                Kind.LONE_SURROGATE, r"holds half of a surrogate pair (\ud800 to \udfff)"
            )


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
