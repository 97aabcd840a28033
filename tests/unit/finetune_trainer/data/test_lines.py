"""A file's first bytes tell what it is; a line is JSON in the strict sense, or is named for what
it is not."""

from __future__ import annotations

import io
import json

import pytest

from finetune_trainer.data.faults import FileError, Kind, RowError
from finetune_trainer.data.lines import (
    LONGEST_LINE,
    check_head,
    is_array,
    numbered_lines,
    parse_line,
)


@pytest.mark.parametrize(
    ("magic", "kind", "name"),
    [
        (b"PK\x03\x04", Kind.COMPRESSED, "zip"),
        (b"BZh9", Kind.COMPRESSED, "bzip2"),
        (b"\xfd7zXZ\x00", Kind.COMPRESSED, "xz"),
        (b"ARROW1\x00\x00", Kind.BINARY_FORMAT, "Arrow"),
        (b"\xff\xff\xff\xff", Kind.BINARY_FORMAT, "an Arrow stream"),
        (b"Obj\x01", Kind.BINARY_FORMAT, "Avro"),
        (b"SQLite format 3\x00", Kind.BINARY_FORMAT, "SQLite"),
        (b"\x89HDF\r\n", Kind.BINARY_FORMAT, "HDF5"),
        (b"\x93NUMPY", Kind.BINARY_FORMAT, "NumPy"),
        (b"\xff\xfe", Kind.NOT_UTF8_FILE, "UTF-16"),
        (b"\xfe\xff", Kind.NOT_UTF8_FILE, "UTF-16"),
        (b"\xff\xfe\x00\x00", Kind.NOT_UTF8_FILE, "UTF-32"),
        (b"\x00\x00\xfe\xff", Kind.NOT_UTF8_FILE, "UTF-32"),
    ],
)
def test_files_are_known_by_their_first_bytes(magic: bytes, kind: Kind, name: str) -> None:
    with pytest.raises(FileError, match=name) as caught:
        check_head(magic + b'{"messages": []}\n')
    assert caught.value.kind is kind


@pytest.mark.parametrize(
    "head",
    [
        b'{"a": 1}\n{"a": 2}\n',
        b'{"a": 1}',
        b'[1, 2]\n{"a": 1}\n',
        b'\n\n{"a": 1}',
        b'{"a": [\n{"a": 1}\n',
        b"{" + b'"a": "' + b"x" * 4000,
        b'{\n{"a": 1}\n',
    ],
)
def test_what_may_be_lines_is_left_to_the_rows(head: bytes) -> None:
    check_head(head)


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b'{\n  "a": 1', Kind.PRETTY_PRINTED),
        (b'{\r\n\t"a": 1', Kind.PRETTY_PRINTED),
        (b'{"a": [\n  {', Kind.PRETTY_PRINTED),
        (b'{"a": 1,\n "b": 2}', Kind.PRETTY_PRINTED),
    ],
)
def test_one_document_is_not_lines(head: bytes, kind: Kind) -> None:
    with pytest.raises(FileError) as caught:
        check_head(head)
    assert caught.value.kind is kind


@pytest.mark.parametrize(
    ("head", "array"),
    [
        (b"[\n", True),
        (b' \n [ {"a": 1}]', True),
        (b'\xef\xbb\xbf[{"a": 1},', True),
        (b'[1, 2]\n{"a": 1}\n', False),
        (b'{"a": [\n{"a": 1}\n', False),
    ],
)
def test_an_array_is_known_by_its_beginning(head: bytes, array: bool) -> None:
    assert is_array(head, certain=False) is array
    assert is_array(head, certain=True) is head.lstrip(b"\xef\xbb\xbf \n").startswith(b"[")


def test_lines_are_counted_whatever_their_length() -> None:
    long = b"x" * (2 * LONGEST_LINE + 5)
    lines = list(numbered_lines(io.BytesIO(b"a\n" + long + b"\n\nb")))
    assert [number for number, _ in lines] == [1, 2, 3, 4]
    assert [len(line) for _, line in lines] == [2, LONGEST_LINE + 1, 1, 1]
    just = b"x" * LONGEST_LINE
    assert [len(line) for _, line in numbered_lines(io.BytesIO(just + b"\nb"))] == [
        LONGEST_LINE + 1,
        1,
    ]


def test_the_longest_line_may_be_read() -> None:
    line = json.dumps({"a": "x" * (LONGEST_LINE - 9)}).encode()
    assert len(line) == LONGEST_LINE
    assert parse_line(line)
    with pytest.raises(RowError) as caught:
        parse_line(line + b" ")
    assert caught.value.kind is Kind.LINE_TOO_LONG


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (rb'{"a": {"b": "\uDC00"}}', Kind.LONE_SURROGATE),
        (rb'{"a": ["\ud800x"]}', Kind.LONE_SURROGATE),
        (rb'{"\udfff": 1}', Kind.LONE_SURROGATE),
        (rb'{"a": ["x\u0000"]}', Kind.CONTROL_CHARACTER),
        (b'{"a": {"b": 1, "c": 2, "b": 3}}', Kind.DUPLICATE_KEY),
        (b'{"a": [Infinity]}', Kind.NON_FINITE_NUMBER),
        (b'{"a": 1} {"a": 2}', Kind.BAD_JSON),
        (b"{'a': 1}", Kind.BAD_JSON),
        (b"null", Kind.NOT_AN_OBJECT),
    ],
)
def test_strict_json(line: bytes, kind: Kind) -> None:
    with pytest.raises(RowError) as caught:
        parse_line(line)
    assert caught.value.kind is kind


def test_what_escapes_may_say() -> None:
    assert parse_line(rb'{"a": "\ud83d\ude00 \\ud800 \u0007"}') == {"a": "\U0001f600 \\ud800 \x07"}
