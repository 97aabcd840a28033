"""Files of every kind give the rows, tokens and places of their twin in JSON Lines."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_contract.recipe import BadRows, DataFormat, FileFormat
from finetune_trainer.data.check import DataFile, check_files
from finetune_trainer.data.encode import Encoder
from finetune_trainer.data.encoding import Encoding, Form, encode_once
from finetune_trainer.data.faults import Findings, Kind
from finetune_trainer.data.files import json_array
from finetune_trainer.data.files.records import count, records
from support.models.tiny_llama import byte_tokenizer, dialogue

TEXTS = [
    ("2 + 3 =", "5"),
    ("a, b; c\td|e", 'says "no"\nand\r\ngoes'),
    ("Grüße, 世界 \U0001f600", "'single' \\ back"),
    ("[1, 2]", '{"a": 1}'),
    ("  white  ", "1e5"),
]
PAIRS = [{"prompt": prompt, "completion": completion} for prompt, completion in TEXTS]
DIALOGUES: list[dict[str, Any]] = [
    dialogue("Hi", "Hello"),
    dialogue("2?", "2!", "3?", "3!"),
    {"messages": [{"role": "system", "content": "Short."}, *dialogue("x", "y")["messages"]]},
]


def lines(rows: list[Any], end: str = "\n") -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + end for row in rows).encode()


def table(rows: list[dict[str, str]], **dialect: Any) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, ["prompt", "completion"], **dialect)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def parquet(rows: list[Any], schema: pa.Schema | None = None, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), sink, **options)
    return sink.getvalue()


def zstd(content: bytes) -> bytes:
    packed: bytes = pa.Codec("zstd").compress(content, asbytes=True)
    return packed


def typed(text: pa.DataType) -> pa.Schema:
    return pa.schema([("prompt", text), ("completion", text)])


# name of the file -> its content, of the same rows as PAIRS
TWINS: dict[str, bytes] = {
    "crlf.jsonl": lines(PAIRS, "\r\n"),
    "mark.jsonl": b"\xef\xbb\xbf" + lines(PAIRS),
    "blank.jsonl": b"\n" + lines(PAIRS, "\n \n") + b"\n",
    "no-end.jsonl": lines(PAIRS)[:-1],
    "lines.json": lines(PAIRS),
    "array.json": json.dumps(PAIRS).encode(),
    "pretty.json": json.dumps(PAIRS, indent=2).encode(),
    "array-in-disguise.jsonl": json.dumps(PAIRS).encode(),
    "packed.jsonl.gz": gzip.compress(lines(PAIRS)),
    "members.jsonl.gz": b"".join(gzip.compress(lines([row])) for row in PAIRS),
    "packed.jsonl.zst": zstd(lines(PAIRS)),
    "frames.json.zst": zstd(lines(PAIRS[:2])) + zstd(lines(PAIRS[2:])),
    "packed-without-a-name": gzip.compress(json.dumps(PAIRS).encode()),
    "excel.csv": table(PAIRS),
    "unix.csv": table(PAIRS, lineterminator="\n", quoting=csv.QUOTE_ALL),
    "semicolons.csv": b"\xef\xbb\xbf" + table(PAIRS, delimiter=";"),
    "tabs.tsv": table(PAIRS, delimiter="\t"),
    "tabs.csv": table(PAIRS, delimiter="\t"),
    "packed.csv.gz": gzip.compress(table(PAIRS)),
    "packed.tsv.zst": zstd(table(PAIRS, delimiter="\t")),
    "plain.parquet": parquet(PAIRS),
    "groups.parquet": parquet(PAIRS, row_group_size=2, compression="zstd"),
    "wide.parquet": parquet(PAIRS, typed(pa.large_string()), use_dictionary=False),
    "dictionary.parquet": parquet(PAIRS, typed(pa.dictionary(pa.int32(), pa.string()))),
    "binary.parquet": parquet(
        [{name: text.encode() for name, text in row.items()} for row in PAIRS]
    ),
    "parquet-without-a-name": parquet(PAIRS),
}
Rows = Callable[[str, bytes], Any]


def read(path: Path, name: str = "", file_format: FileFormat = FileFormat.AUTO) -> list[Any]:
    return list(records(path, name or path.name, file_format, lambda *_: None))


@pytest.fixture
def encoded(tmp_path: Path) -> Rows:
    """Return a function that tells all that is kept of a file but its line numbers."""
    model = tmp_path / "model"
    byte_tokenizer().save_pretrained(model)

    def encode(name: str, content: bytes) -> dict[str, bytes]:
        path = tmp_path / name
        path.write_bytes(content)
        file = DataFile.counted(f"s3://d/{name}", path, DataFormat.AUTO)
        what = Encoding((file,), Form(256), model, BadRows.FAIL)
        load = lambda: Encoder(byte_tokenizer(), 256)  # noqa: E731
        kept = encode_once(what, tmp_path / "root", load, frozenset(), lambda lines: None)
        names = ("tokens", "learned", "offsets", "keys", "places")
        return {name: (kept / name).read_bytes() for name in names}

    return encode


def test_every_layout_gives_the_tokens_of_its_twin(encoded: Rows) -> None:
    expected = encoded("twin.jsonl", lines(PAIRS))
    assert len(TWINS) >= 15
    for name, content in TWINS.items():
        assert encoded(name, content) == expected, name


@pytest.mark.parametrize(
    ("name", "content"),
    {
        "nested.parquet": parquet(DIALOGUES),
        "groups.parquet": parquet(DIALOGUES, row_group_size=1),
        "array.json": json.dumps(DIALOGUES, indent=1).encode(),
        "json-within.csv": "\n".join(
            [
                "messages",
                *('"' + json.dumps(r["messages"]).replace('"', '""') + '"' for r in DIALOGUES),
            ]
        ).encode(),
    }.items(),
)
def test_dialogues_too(encoded: Rows, name: str, content: bytes) -> None:
    assert encoded(name, content) == encoded("twin.jsonl", lines(DIALOGUES))


def test_files_of_one_source_are_read_as_one(tmp_path: Path) -> None:
    parts = []
    for name, content in {"a.csv": table(PAIRS[:2]), "b.jsonl": b"null\n" + lines(PAIRS)}.items():
        (tmp_path / name).write_bytes(content)
        parts.append((f"s3://d/{name}", tmp_path / name))
    file = DataFile.joined("s3://d/", parts, DataFormat.AUTO)
    assert file.lines == 2 + 6
    seen: list[Any] = []
    findings = Findings()
    [counts] = check_files(
        [file], findings, lambda _, row: seen.append((row.uri, row.line, row.place))
    )
    assert (counts.good, counts.bad) == (7, 1)
    assert seen[:3] == [("s3://d/a.csv", 2, 0), ("s3://d/a.csv", 3, 1), ("s3://d/b.jsonl", 2, 3)]
    [fault] = findings.shown
    assert (fault.uri, fault.row) == ("s3://d/b.jsonl", 1)
    swapped = DataFile.joined("s3://d/", parts[::-1], DataFormat.AUTO)
    assert swapped.sha256 != file.sha256
    alone = DataFile.joined(parts[0][0], parts[:1], DataFormat.AUTO)
    assert alone == DataFile.counted(*parts[0], DataFormat.AUTO)


@pytest.mark.parametrize("name", TWINS)
def test_rows_are_counted_before_they_are_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(TWINS[name])
    expected = TWINS[name].count(b"\n") if name == "blank.jsonl" else len(PAIRS)
    assert count(path, name, FileFormat.AUTO) == expected


def test_numbers_are_those_of_the_file(tmp_path: Path) -> None:
    def numbers(name: str) -> list[int]:
        (tmp_path / name).write_bytes(TWINS[name])
        return [number for number, _ in read(tmp_path / name)]

    assert numbers("blank.jsonl") == [2, 4, 6, 8, 10]
    assert numbers("excel.csv") == [2, 3, 6, 7, 8], "the lines where the records begin"
    for name in ("pretty.json", "groups.parquet", "members.jsonl.gz"):
        assert numbers(name) == [1, 2, 3, 4, 5]


def test_blank_lines_and_a_mark_are_told(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf\n" + lines(PAIRS[:1]) + b" \t\r\n" + lines(PAIRS[1:2]))
    told: list[Any] = []
    list(records(path, path.name, FileFormat.AUTO, lambda *note: told.append(note[:2])))
    assert told == [
        (Kind.BYTE_ORDER_MARK, None),
        (Kind.BLANK_LINE, 1),
        (Kind.BLANK_LINE, 3),
    ]


def test_what_a_file_is_may_be_said(tmp_path: Path) -> None:
    path = tmp_path / "data.txt"
    path.write_bytes(table(PAIRS, delimiter="\t"))
    assert [row for _, row in read(path, file_format=FileFormat.TSV)] == PAIRS
    path.write_bytes(b'["x"]\n' + lines(PAIRS[:1]))
    assert read(path, file_format=FileFormat.JSON_LINES)[1] == (2, PAIRS[0])


def test_what_arrow_knows_becomes_json(tmp_path: Path) -> None:
    import datetime
    import decimal

    moment = datetime.datetime(2026, 1, 2, 3, 4, tzinfo=datetime.UTC)
    columns = {
        "half": pa.array([decimal.Decimal("12.50")], pa.decimal128(10, 2)),
        "whole": pa.array([decimal.Decimal("12.00")], pa.decimal256(40, 2)),
        "at": pa.array([moment], pa.timestamp("us", "UTC")),
        "day": pa.array([moment.date()]),
        "map": pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())),
        "list": pa.array([[{"a": None, "b": [None, 1]}]]),
        "none": pa.nulls(1),
        "small": pa.array([1.5], pa.float16()),
    }
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table(columns), path)
    assert read(path) == [
        (
            1,
            {
                "half": 12.5,
                "whole": 12,
                "at": "2026-01-02T03:04:00+00:00",
                "day": "2026-01-02",
                "map": {"a": 1},
                "list": [{"b": [None, 1]}],
                "small": 1.5,
            },
        )
    ]
    json.dumps(read(path)[0][1])


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.lists(JSON, max_size=6), st.sampled_from([None, 2]), st.integers(1, 40))
def test_an_array_is_read_in_pieces_of_any_size(
    values: list[Any], indent: int | None, piece: int
) -> None:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(piece)

    text = json.dumps(values, indent=indent, ensure_ascii=False)
    found = list(json_array.elements(Slow(text.encode())))
    assert [number for number, _ in found] == list(range(1, len(values) + 1))
    assert [json.loads(element) for _, element in found] == values


GROWS = """
import resource, sys
from pathlib import Path
from finetune_contract.recipe import FileFormat
from finetune_trainer.data.files.records import records
import pyarrow.parquet
path = Path(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
rows = sum(1 for _ in records(path, path.name, FileFormat.AUTO, lambda *_: None))
print(rows, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.parametrize("layout", ["one-group.parquet", "array.json.zst", "table.csv.gz"])
def test_memory_does_not_grow_with_a_file(tmp_path: Path, layout: str) -> None:
    """A file of 160 MiB of text, as one row group, or packed, is read in less than 64 MiB."""
    text = [{"prompt": os.urandom(4000).hex(), "completion": f"{n}"} for n in range(400)]
    path = tmp_path / layout
    if layout.endswith("parquet"):
        whole = pa.concat_tables([pa.Table.from_pylist(text)] * 50).combine_chunks()
        pq.write_table(whole, path, use_dictionary=False, row_group_size=2**30, compression="none")
    elif layout.startswith("array"):
        part = ",".join(map(json.dumps, text)).encode()
        with pa.CompressedOutputStream(str(path), "zstd") as file:
            file.write(b"[" + b",".join([part] * 50) + b"]")
    else:
        with gzip.open(path, "wb", 1) as packed:
            packed.write(b"prompt,completion\n")
            for _ in range(50):
                packed.write(b"".join(f"{r['prompt']},{r['completion']}\n".encode() for r in text))
    rows, mebibytes = read_apart(path)
    assert rows == 20_000
    assert mebibytes < 64


@pytest.mark.slow
def test_two_gib_of_parquet_are_read_in_the_same_memory(tmp_path: Path) -> None:
    path = tmp_path / "two-gib.parquet"
    writer = None
    for _ in range(65):
        text = [{"prompt": os.urandom(4000).hex(), "completion": "x" * 400} for _ in range(4000)]
        part = pa.Table.from_pylist(text)
        writer = writer or pq.ParquetWriter(
            path, part.schema, compression="none", use_dictionary=False
        )
        writer.write_table(part)
    writer.close()
    assert path.stat().st_size > 2 * 2**30
    rows, mebibytes = read_apart(path)
    assert rows == 65 * 4000
    assert mebibytes < 128


def read_apart(path: Path) -> tuple[int, int]:
    """Return a file's rows, and the MiB of memory that a process needs to read them."""
    ran = subprocess.run(
        [sys.executable, "-c", GROWS, str(path)], capture_output=True, text=True, check=True
    )
    rows, mebibytes = map(int, ran.stdout.split())
    return rows, mebibytes
