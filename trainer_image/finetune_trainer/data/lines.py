"""A file's first bytes and its lines -> JSON objects, or what is wrong with them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import IO, Any

from finetune_trainer.data.faults import FileError, Kind, RowError

LONGEST_LINE = 16 * 2**20  # bytes
DEEPEST = 100
HEAD_BYTES = 4096

_UTF8_MARK = b"\xef\xbb\xbf"
# UTF-32's little-endian mark begins with UTF-16's, so it stands first.
_WIDE_MARKS = {
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "zip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
}
_BINARY = {
    b"PAR1": "Parquet",
    b"ARROW1": "Arrow",
    b"\xff\xff\xff\xff": "an Arrow stream",
    b"Obj\x01": "Avro",
    b"SQLite format 3\x00": "SQLite",
    b"\x89HDF": "HDF5",
    b"\x93NUMPY": "NumPy",
}


def check_head(head: bytes) -> None:
    """Raise FileError if a file that begins like this is no JSON Lines in UTF-8."""
    if not head:
        raise FileError(Kind.EMPTY_FILE, "is empty")
    _check_encoding(head)
    for magic, name in _COMPRESSED.items():
        if head.startswith(magic):
            raise FileError(Kind.COMPRESSED, f"is compressed with {name}; unpack it")
    for magic, name in _BINARY.items():
        if head.startswith(magic):
            raise FileError(Kind.BINARY_FORMAT, f"is {name}; export it as JSON Lines")
    _check_layout(head.lstrip())


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
    if not text or text.isspace():
        raise RowError(Kind.BLANK_LINE, "is blank; remove the line")
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
    if not isinstance(value, dict):
        raise RowError(Kind.NOT_AN_OBJECT, "is not a JSON object")
    return value


def _check_encoding(head: bytes) -> None:
    if head.startswith(_UTF8_MARK):
        raise FileError(
            Kind.BYTE_ORDER_MARK, "begins with a byte-order mark; save it as UTF-8 without one"
        )
    if head.startswith(b"\xff\xff\xff\xff"):
        return
    wide = next((name for mark, name in _WIDE_MARKS.items() if head.startswith(mark)), None)
    if wide is None and b"\0" in head[:4]:  # JSON begins with ASCII, so zeros tell the width
        wide = "UTF-32" if head[:4].count(0) == 3 else "UTF-16" if head[:4].count(0) == 2 else None
    if wide:
        raise FileError(Kind.NOT_UTF8_FILE, f"is {wide}; save it as UTF-8")


def _check_layout(head: bytes) -> None:
    """Tell one JSON document from JSON Lines, by the first line that is not blank."""
    first, _, rest = head.partition(b"\n")
    first = first.rstrip()
    if first == b"[" or (first.startswith(b"[") and first[1:].lstrip().startswith(b"{")):
        raise FileError(Kind.JSON_ARRAY, "is one JSON array; write one object per line")
    opened = first.startswith(b"{") and first.endswith((b"{", b"[", b","))
    if opened and rest.startswith((b" ", b"\t")):
        raise FileError(
            Kind.PRETTY_PRINTED, "is pretty-printed: its first object runs over several lines"
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
