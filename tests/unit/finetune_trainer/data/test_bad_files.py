"""What is wrong with a file is told with its remedy, and ends no process."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finetune_contract.recipe import FileFormat
from finetune_trainer.data.faults import FileError, Kind, RowError, Severity
from finetune_trainer.data.files.records import count, records
from finetune_trainer.data.lines import LONGEST_LINE

ROW = {"prompt": "a", "completion": "b"}
LINES = (json.dumps(ROW) + "\n").encode() * 50
BOMB = gzip.compress(b"\0" * 2**20) * 300  # members that unpack to 300 MiB


def parquet(*columns: tuple[str, Any], **options: Any) -> bytes:
    sink = io.BytesIO()
    names = [name for name, _ in columns]
    pq.write_table(pa.table([values for _, values in columns], names=names), sink, **options)
    return sink.getvalue()


def zstd(content: bytes) -> bytes:
    packed: bytes = pa.Codec("zstd").compress(content, asbytes=True)
    return packed


GOOD = parquet(("prompt", ["a"] * 5000), ("completion", ["b"] * 5000))
FILES: list[tuple[str, bytes, Kind, str]] = [
    ("empty.jsonl", b"", Kind.EMPTY_FILE, "is empty"),
    ("empty.csv", b"", Kind.EMPTY_FILE, "is empty"),
    ("empty.parquet", b"", Kind.EMPTY_FILE, "is empty"),
    ("empty.jsonl.gz", gzip.compress(b""), Kind.EMPTY_FILE, "is empty"),
    ("header.csv", b"prompt,completion\n", Kind.BLANK_FILE, "holds no row"),
    ("none.json", b"[]", Kind.BLANK_FILE, "holds no row"),
    ("none.parquet", parquet(("prompt", pa.array([], pa.string()))), Kind.BLANK_FILE, "no row"),
    ("wide.csv", "prompt,completion\na,b\n".encode("utf-16"), Kind.NOT_UTF8_FILE, "save it as"),
    ("wide.json", json.dumps([ROW]).encode("utf-16-le"), Kind.NOT_UTF8_FILE, "UTF-16"),
    ("wide.jsonl.gz", gzip.compress(LINES.decode().encode("utf-32")), Kind.NOT_UTF8_FILE, "UTF-32"),
    ("cut.jsonl.gz", gzip.compress(LINES)[:-9], Kind.DAMAGED_FILE, "is cut short"),
    ("cut.jsonl.zst", zstd(LINES)[:-4], Kind.DAMAGED_FILE, "is cut short"),
    ("rest.jsonl.gz", gzip.compress(LINES) + b"rest", Kind.DAMAGED_FILE, "pack and upload"),
    ("rest.jsonl.zst", zstd(LINES) + b"rest" * 9, Kind.DAMAGED_FILE, "pack and upload"),
    ("flip.jsonl.gz", gzip.compress(LINES)[:-6] + b"\0" * 6, Kind.DAMAGED_FILE, "is damaged"),
    ("bomb.jsonl.gz", BOMB, Kind.UNPACKS_TOO_FAR, "unpack it"),
    ("bomb.json.zst", zstd(b"[" + b" " * 2**28), Kind.UNPACKS_TOO_FAR, "200 times"),
    ("twice.gz", gzip.compress(zip_ := b"PK\x03\x04" + LINES), Kind.COMPRESSED, "zip"),
    ("a.parquet.gz", gzip.compress(GOOD), Kind.COMPRESSED, "unpack it"),
    ("cut.parquet", GOOD[:-100], Kind.DAMAGED_FILE, "no whole Parquet"),
    ("pointer.parquet", b"version https://git-lfs\n", Kind.DAMAGED_FILE, "no Parquet"),
    ("page.parquet", GOOD[:20] + b"\xff" * 60 + GOOD[80:], Kind.DAMAGED_FILE, "Parquet"),
    ("same.parquet", parquet(("a", [1]), ("a", [2])), Kind.DUPLICATE_COLUMN, "the same name"),
    ("same.csv", b"a,b,a\n1,2,3\n", Kind.BAD_CSV, "two columns of the same name"),
    ("open.csv", b'prompt,completion\na,b\nc,"d\ne,f\n', Kind.BAD_CSV, "row 3 on: a quote is"),
    ("within.csv", b'prompt,completion\n"a "b" c",d\n', Kind.BAD_CSV, "write it twice"),
    ("mac.csv", b"prompt,completion\ra,b\rc,d\r", Kind.BAD_CSV, "save it with line feeds"),
    ("latin.csv", "größe,x\n1,2\n".encode("latin-1"), Kind.NOT_UTF8_FILE, "save it as UTF-8"),
    ("cut.json", json.dumps([ROW] * 3)[:-2].encode(), Kind.BAD_JSON_ARRAY, "row 3"),
    ("comma.json", b'[{"a": 1},]', Kind.BAD_JSON_ARRAY, "row 2"),
    ("none.json", b'[{"a": 1} {"a": 2}]', Kind.BAD_JSON_ARRAY, "row 1, ',' is missing"),
    ("more.json", b'[{"a": 1}]\n[{"a": 2}]', Kind.BAD_JSON_ARRAY, "behind the array's end"),
    ("latin.json", '[{"a": "ü"}]'.encode("latin-1"), Kind.BAD_JSON_ARRAY, "save the file as UTF-8"),
    ("long.json", b'[{"a": "' + b"x" * 3 * LONGEST_LINE, Kind.BAD_JSON_ARRAY, "longer than 16 MiB"),
    ("deep.json", b"[{}," + b"[" * 100_000, Kind.BAD_JSON_ARRAY, "nested too deeply"),
    ("single.json", b'{\n  "data": []\n}', Kind.PRETTY_PRINTED, "an array of all objects"),
]


def read(path: Path, file_format: FileFormat = FileFormat.AUTO) -> list[Any]:
    return list(records(path, path.name, file_format, lambda *_: None))


@pytest.mark.parametrize(("name", "content", "kind", "words"), FILES, ids=[f[0] for f in FILES])
def test_a_bad_file_is_told(
    tmp_path: Path, name: str, content: bytes, kind: Kind, words: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(FileError, match=words) as caught:
        read(path)
    assert caught.value.kind is kind
    assert kind.severity is Severity.FILE
    count(path, name, FileFormat.AUTO)  # does not raise


@pytest.mark.parametrize("file_format", [FileFormat.PARQUET, FileFormat.JSON])
def test_a_file_is_not_what_it_was_said_to_be(tmp_path: Path, file_format: FileFormat) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(LINES)
    with pytest.raises(FileError):
        read(path, file_format)


def faults(path: Path) -> list[tuple[int, Kind]]:
    return [(at, row.kind) for at, row in read(path) if isinstance(row, RowError)]


def test_rows_around_a_bad_one_are_read(tmp_path: Path) -> None:
    (path := tmp_path / "a.csv").write_bytes(
        b"prompt,completion\na,b\nc\nd,e,f\n\xfc,g\nh,\0\ni,j\n"
    )
    assert faults(path) == [
        (3, Kind.WRONG_CELLS),
        (4, Kind.WRONG_CELLS),
        (5, Kind.NOT_UTF8),
        (6, Kind.CONTROL_CHARACTER),
    ]
    assert read(path)[-1] == (7, {"prompt": "i", "completion": "j"})
    (path := tmp_path / "b.csv").write_bytes(b"messages\n\"[{'role': 'user'}]\"\n[]\n")
    assert faults(path) == [(2, Kind.BAD_JSON)]
    (path := tmp_path / "a.json").write_bytes(
        b'[1, {"a": NaN}, {"a": 1, "a": 2}, {"a": "\\ud800"}, {"a": "\t"}, {"a": 1}]'
    )
    assert faults(path) == [
        (1, Kind.NOT_AN_OBJECT),
        (2, Kind.NON_FINITE_NUMBER),
        (3, Kind.DUPLICATE_KEY),
        (4, Kind.LONE_SURROGATE),
        (5, Kind.CONTROL_CHARACTER),
    ]
    values = pa.array([b"a", b"\xff", b"b"], pa.binary())
    (path := tmp_path / "a.parquet").write_bytes(parquet(("a", values)))
    assert faults(path) == [(2, Kind.UNSUPPORTED_VALUE)]
    path.write_bytes(parquet(("a", ["a\0b", "c"]), ("b", [["d"], ["\0"]])))
    assert faults(path) == [(1, Kind.CONTROL_CHARACTER), (2, Kind.CONTROL_CHARACTER)]
    path.write_bytes(parquet(("a", [1.0, float("nan"), float("inf")])))
    assert faults(path) == [(2, Kind.NON_FINITE_NUMBER), (3, Kind.NON_FINITE_NUMBER)]
    path.write_bytes(parquet(("a", pa.array([1, 2], pa.duration("s")))))
    assert faults(path) == [(1, Kind.UNSUPPORTED_VALUE), (2, Kind.UNSUPPORTED_VALUE)]


def test_empty_cells_and_columns_without_a_name_are_none(tmp_path: Path) -> None:
    (path := tmp_path / "a.csv").write_bytes(b",prompt,system\n0,a,\n1,,b\n")
    assert read(path) == [(2, {"prompt": "a"}), (3, {"system": "b"})]
