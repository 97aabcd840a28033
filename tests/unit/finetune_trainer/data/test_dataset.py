"""Encoded rows as mapped files, and the structural pass that they come from."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tracemalloc
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from finetune_contract.recipe import BadRows, DataFormat
from finetune_trainer.data.check import CheckedRow, Counts, DataFile, check_files
from finetune_trainer.data.dataset import (
    DatasetWriter,
    Index,
    Source,
    open_dataset,
    read_index,
    read_keys,
)
from finetune_trainer.data.duplicates import DuplicateFinder, Place
from finetune_trainer.data.encode import EncodedRow
from finetune_trainer.data.faults import Findings, Kind, RowError
from finetune_trainer.process.errors import Failure
from support.models.tiny_llama import dialogue, write_rows

GOOD = dialogue("Hi", "Hello")
PAIR = {"prompt": "Hi", "completion": "Hello"}
BAD = {"messages": []}


def encoded(length: int, value: int = 7) -> EncodedRow:
    learned = np.arange(length) % 2 == 1
    return EncodedRow(np.full(length, value, dtype=np.int32), learned)


def files(*paths: Path, data_format: DataFormat = DataFormat.AUTO) -> list[DataFile]:
    return [DataFile.counted(f"s3://d/{path.name}", path, data_format) for path in paths]


def nothing(file: DataFile, row: CheckedRow) -> None:
    """Accept a row."""


def faults(*paths: Path, data_format: DataFormat = DataFormat.AUTO) -> list[str]:
    findings = Findings()
    check_files(files(*paths, data_format=data_format), findings, nothing)
    with pytest.raises(Failure) as caught:
        findings.raise_if_any()
    return caught.value.message.splitlines()


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    lengths = [3, 1, 70_000, 2]
    with closing(DatasetWriter(tmp_path)) as writer:
        for number, length in enumerate(lengths):
            writer.add(encoded(length, number), 2**64 - 1 - number, line=10 + number, place=number)
        index = Index((1, 3), (2, 3), writer.tokens, 5, {"DuplicateRow": 2}, {"id": 4})
        writer.finish(index)
    assert read_index(tmp_path) == index
    data = open_dataset(tmp_path, [1.0, 2.5])
    assert len(data) == 4
    assert data.sources == (Source(1, 1.0, left_out=2), Source(3, 2.5, left_out=3))
    for number, length in enumerate(lengths):
        row, expected = data.row(number), encoded(length, number)
        assert row.tokens.tolist() == expected.tokens.tolist()
        assert row.learned.tolist() == expected.learned.tolist()
        assert isinstance(row.tokens, np.memmap)
    assert [data.source(number) for number in range(4)] == [0, 1, 1, 1]
    assert data.lines.tolist() == [10, 11, 12, 13]
    assert [data.place(number) for number in range(4)] == [0, 3 + 1, 3 + 2, 3 + 3]
    assert read_keys(tmp_path) == {2**64 - 1, 2**64 - 2, 2**64 - 3, 2**64 - 4}


@pytest.mark.parametrize("name", ["tokens", "learned", "offsets", "keys", "lines", "places"])
def test_a_dataset_that_is_not_whole_is_none(tmp_path: Path, name: str) -> None:
    assert read_index(tmp_path) is None
    with closing(DatasetWriter(tmp_path)) as writer:
        writer.add(encoded(3), 1, 1, 0)
        assert read_index(tmp_path) is None
        writer.finish(Index((1,), (0,), writer.tokens, 0, {}, {}))
    assert read_index(tmp_path) is not None
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:-1])
    assert read_index(tmp_path) is None


@pytest.mark.parametrize(
    ("weight", "taken"), [(1.0, 10), (2.0, 20), (0.5, 5), (0.25, 3), (0.24, 2), (0.001, 1)]
)
def test_an_epoch_takes_a_rounded_part_and_at_least_one(weight: float, taken: int) -> None:
    assert Source(10, weight).taken == taken
    assert Source(3, weight, left_out=7).taken == taken


def test_every_fault_is_told_with_file_and_row(tmp_path: Path) -> None:
    first = write_rows(tmp_path / "a.jsonl", [GOOD, BAD, GOOD | {"id": 1}, PAIR])
    second = tmp_path / "b.jsonl"
    second.write_bytes(json.dumps(PAIR).encode() + b"\n{\n" + json.dumps(GOOD).encode())
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "wide.jsonl").write_text(json.dumps(GOOD), encoding="utf-16")
    assert faults(first, second, tmp_path / "empty.jsonl", tmp_path / "wide.jsonl") == [
        "s3://d/a.jsonl row 2: 'messages' is empty",
        "s3://d/a.jsonl row 4: is written as PromptCompletion in a file of Messages",
        "s3://d/b.jsonl row 2: is not JSON: Expecting property name enclosed in double quotes"
        " at column 2",
        "s3://d/b.jsonl row 3: is written as Messages in a file of PromptCompletion",
        "s3://d/empty.jsonl: is empty",
        "s3://d/wide.jsonl: is UTF-16; save it as UTF-8",
    ]


def test_a_format_that_is_set_is_not_guessed(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [PAIR])
    assert "is written as PromptCompletion" in faults(path, data_format=DataFormat.MESSAGES)[0]


def test_the_format_is_guessed_from_the_first_row_that_shows_it(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"x": 1}, PAIR, GOOD])
    assert [line.split()[2] for line in faults(path)] == ["1:", "3:"]


def test_a_first_row_that_is_cut_short_is_a_fault_of_the_row(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"messages": [\n' + json.dumps(GOOD).encode())
    assert faults(path) == ["s3://d/a.jsonl row 1: is not JSON: Expecting value at column 15"]


def test_a_line_that_is_too_long_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"x" * (3 * 2**24 + 1) + b"\n" + json.dumps(BAD).encode())
    assert faults(path) == [
        "s3://d/a.jsonl row 1: is longer than 16 MiB",
        "s3://d/a.jsonl row 2: 'messages' is empty",
    ]


def test_many_faults_are_counted(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [BAD] * 50)
    lines = faults(path)
    assert len(lines) == 21
    assert lines[-1] == "and 30 more"
    assert len(faults(write_rows(path, [BAD] * 20))) == 20


def test_rows_left_out_are_told_to_the_listener_and_counted_apart() -> None:
    told = []
    findings = Findings(BadRows.SKIP, told.append)
    findings.add("u", 1, Kind.BAD_JSON, "is not JSON")
    findings.add("u", 2, Kind.DUPLICATE_ROW, "is row 1 again")
    assert [findings.skips(fault) for fault in told] == [True, False]
    assert (findings.skipped, findings.fatal, findings.warned) == (1, 0, {"DuplicateRow": 1})
    findings.raise_if_any()
    findings.add("u", None, Kind.EMPTY_FILE, "is empty")
    with pytest.raises(Failure, match=r"^u: is empty$"):
        findings.raise_if_any()


def test_rows_that_are_refused_later_count_as_bad(tmp_path: Path) -> None:
    def refuse(file: DataFile, row: CheckedRow) -> None:
        if row.line == 2:
            raise RowError(Kind.TOO_LONG, "is too long")

    path = write_rows(tmp_path / "a.jsonl", [dialogue("1", str(n)) for n in range(3)])
    findings = Findings(BadRows.SKIP)
    assert check_files(files(path), findings, refuse) == (Counts(2, 1),)
    assert findings.counts == {Kind.TOO_LONG: 1}


def test_duplicates_tell_the_first_place_and_each_other(tmp_path: Path) -> None:
    first = write_rows(tmp_path / "a.jsonl", [GOOD, PAIR_AS_TURNS, GOOD])
    second = write_rows(tmp_path / "b.jsonl", [GOOD, dialogue("new", "row")])
    findings = Findings()
    check_files(files(first, second), findings, nothing, scratch=tmp_path)
    assert sorted(map(str, findings.warnings)) == [
        "s3://d/a.jsonl row 3: is row 1 again",
        "s3://d/b.jsonl row 1: is s3://d/a.jsonl row 1 again",
    ]
    assert not findings.fatal
    assert {path.name for path in tmp_path.iterdir()} == {"a.jsonl", "b.jsonl"}


PAIR_AS_TURNS = dialogue("x", "y")


def test_duplicates_are_found_among_more_rows_than_are_kept_in_memory(tmp_path: Path) -> None:
    tracemalloc.start()
    finder = DuplicateFinder(tmp_path)
    for line in range(60_000):
        finder.add((line % 59_990) * 64 + 5, Place(0, line))  # one part takes them all
    assert tracemalloc.get_traced_memory()[1] < 2**19
    tracemalloc.stop()
    assert list(finder.pairs()) == [(Place(0, 59_990 + n), Place(0, n)) for n in range(10)]


def test_rows_are_spread_over_parts_that_are_looked_through_one_by_one(tmp_path: Path) -> None:
    finder = DuplicateFinder(tmp_path)
    for line in range(6400):
        finder.add(line, Place(0, line))
    assert list(finder.pairs()) == []
    sizes = {path.stat().st_size for path in tmp_path.iterdir()}
    assert sizes == {100 * 20}


def test_rows_and_digest_are_of_the_file_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    for text, rows in (
        (b"a\r\nb\nc", 3),
        (b"a\nb\n", 2),
        (b"", 0),
        (b"\n" * 2**20 + b"x", 2**20 + 1),
    ):
        path.write_bytes(text)
        [file] = files(path)
        assert (file.lines, file.sha256) == (rows, "sha256:" + hashlib.sha256(text).hexdigest())


def test_progress_counts_lines_over_files(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [dialogue(str(n), "x") for n in range(300)])
    seen: list[int] = []
    check_files(files(path, path), Findings(), nothing, on_lines=seen.append)
    assert seen == [256, 300, 556, 600]


def test_memory_does_not_grow_with_rows(tmp_path: Path) -> None:
    """Checked, written and read back: 40 MB of tokens in less than 4 MB."""

    def peak(rows: int) -> int:
        directory = tmp_path / str(rows)
        directory.mkdir()
        path = write_rows(directory / "a.jsonl", [dialogue(str(n), "x") for n in range(rows)])
        row = encoded(8000)
        tracemalloc.start()
        with closing(DatasetWriter(directory)) as writer:
            check_files(
                files(path),
                Findings(),
                lambda _, checked: writer.add(row, checked.key, checked.line, checked.place),
                scratch=directory,
            )
            writer.finish(Index((rows,), (0,), writer.tokens, 0, {}, {}))
        data = open_dataset(directory, [1.0])
        assert sum(int(data.row(n).tokens[-1]) for n in range(rows)) == 7 * rows
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    assert peak(1000) < peak(50) + 2**20 < 2**22


def test_checking_data_does_not_import_torch() -> None:
    modules = "data.encoding, finetune_trainer.store.artifacts, finetune_trainer.launch"
    script = f"import sys, finetune_trainer.{modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
