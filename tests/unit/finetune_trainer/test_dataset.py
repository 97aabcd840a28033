"""Files become a dataset only if every row of every file is good."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from finetune_contract.reasons import Reason
from finetune_contract.recipe import DataFormat
from finetune_trainer.data.dataset import DataFile, Dataset, count_rows, encode_files
from finetune_trainer.data.encode import Encoder
from finetune_trainer.errors import Failure
from support.tiny_llama import byte_tokenizer, dialogue, write_rows

GOOD = dialogue("Hi", "Hello")
PAIR = {"prompt": "Hi", "completion": "Hello"}


def encode(
    *paths: Path, data_format: DataFormat = DataFormat.AUTO, sequence_length: int = 256
) -> Dataset:
    files = [DataFile(f"s3://d/{path.name}", path, data_format) for path in paths]
    return encode_files(files, Encoder(byte_tokenizer()), sequence_length)


def faults(*paths: Path, **options: object) -> list[str]:
    with pytest.raises(Failure) as caught:
        encode(*paths, **options)  # type: ignore[arg-type]
    assert caught.value.reason is Reason.DATA_INVALID
    return caught.value.message.splitlines()


def test_rows_keep_their_order_over_files(tmp_path: Path) -> None:
    first = write_rows(tmp_path / "a.jsonl", [dialogue("1", "one"), dialogue("2", "two")])
    second = write_rows(tmp_path / "b.jsonl", [PAIR])
    data = encode(first, second)
    assert len(data) == 3
    texts = [byte_tokenizer().decode(data.row(index).tokens) for index in range(3)]
    assert [text.split("\n")[1].removesuffix("<|im_end|>") for text in texts] == ["1", "2", "Hi"]
    assert [int(data.row(index).learned.sum()) for index in range(3)] == [4, 4, 6]


def test_every_fault_is_told_with_file_and_row(tmp_path: Path) -> None:
    first = write_rows(tmp_path / "a.jsonl", [GOOD, {"messages": []}, GOOD, PAIR])
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
        "s3://d/wide.jsonl: is UTF-16; save the file as UTF-8",
    ]


def test_a_format_that_is_set_is_not_guessed(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [PAIR])
    assert "is written as PromptCompletion" in faults(path, data_format=DataFormat.MESSAGES)[0]


def test_the_format_is_guessed_from_the_first_row_that_shows_it(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"x": 1}, PAIR, GOOD])
    assert [line.split()[2] for line in faults(path)] == ["1:", "3:"]


def test_a_row_that_is_too_long_is_refused_not_cut(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [GOOD, dialogue("Hi", "x" * 40)])
    tokens = len(encode(path).row(1).tokens)
    assert faults(path, sequence_length=tokens - 1) == [
        f"s3://d/a.jsonl row 2: has {tokens} tokens, more than training.sequenceLength {tokens - 1}"
    ]
    assert len(encode(path, sequence_length=tokens)) == 2


def test_many_faults_are_counted(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"messages": []}] * 50)
    lines = faults(path)
    assert len(lines) == 21
    assert lines[-1] == "and 30 more"
    assert len(faults(write_rows(path, [{"messages": []}] * 20))) == 20


def test_rows_and_digest_are_of_the_file_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    text = b"a\r\nb\nc"
    path.write_bytes(text)
    assert count_rows(path) == (3, "sha256:" + hashlib.sha256(text).hexdigest())


def test_progress_counts_rows(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [GOOD] * 300)
    seen: list[int] = []
    encode_files(
        [DataFile("u", path, DataFormat.AUTO)], Encoder(byte_tokenizer()), 256, seen.append
    )
    assert seen == [256, 300]


def test_checking_data_does_not_import_torch() -> None:
    modules = "data.dataset, finetune_trainer.artifacts, finetune_trainer.launch"
    script = f"import sys, finetune_trainer.{modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
