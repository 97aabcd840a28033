"""Every kind of fault ends a run, with file, row and reason, before the model loads.

The model directory here holds a tokenizer and no weights.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finetune_contract.reasons import Reason
from finetune_contract.recipe import BadRows, DataFormat
from finetune_trainer.data.check import DataFile
from finetune_trainer.data.encoding import Form
from finetune_trainer.data.faults import Kind, Severity
from finetune_trainer.prepare import Prepared, prepare
from finetune_trainer.process.distributed import Ranks
from finetune_trainer.process.errors import Failure
from support.models.faulty_files import (
    CANARY,
    FATAL,
    PROMPTS,
    TEXT,
    WARNINGS,
    Planted,
    among,
    bad_file,
    encoded,
    good,
    row,
)
from support.trainer.parts import run_of
from support.trainer.runs import run_config


def run(planted: Planted, directory: Path, ranks: Ranks, on_bad_row: BadRows) -> Prepared:
    train, held_out = planted.write(directory)
    model = planted.model(directory.parent)
    config = run_config(directory, model=model, data=train)
    data = config.recipe.data.model_copy(update={"on_bad_row": on_bad_row})
    config = config.model_copy(update={"recipe": config.recipe.model_copy(update={"data": data})})
    files = [DataFile.counted("s3://d/train.jsonl", train, DataFormat.AUTO)]
    eval_files = (
        [DataFile.counted("s3://d/eval.jsonl", held_out, DataFormat.AUTO)] if held_out else []
    )
    return prepare(run_of(config, ranks), Form(256), model, files, eval_files)


OF_OTHER_FILES = {  # than JSON Lines, or of no row: test_files and test_bad_files have them
    Kind.BYTE_ORDER_MARK,
    Kind.BLANK_LINE,
    Kind.UNPACKS_TOO_FAR,
    Kind.BAD_CSV,
    Kind.DUPLICATE_COLUMN,
    Kind.WRONG_CELLS,
    Kind.UNSUPPORTED_VALUE,
}


def test_every_kind_is_planted() -> None:
    planted = {fault.kind for fault in (*FATAL, *WARNINGS, *PROMPTS)}
    assert planted == set(Kind) - {Kind.NO_GOOD_ROW} - OF_OTHER_FILES
    assert len(planted) >= 25


@pytest.mark.parametrize("planted", FATAL, ids=lambda planted: planted.id)
def test_a_fault_ends_the_run(planted: Planted, tmp_path: Path, alone: Ranks) -> None:
    with pytest.raises(Failure) as caught:
        run(planted, tmp_path, alone, BadRows.FAIL)
    assert caught.value.reason is Reason.DATA_INVALID
    [line] = caught.value.message.splitlines()
    where = "s3://d/train.jsonl" + (f" row {planted.at}" if planted.at else "")
    assert line.startswith(f"{where}: ")
    assert planted.words in line
    assert CANARY not in line
    made = list(tmp_path.glob("scratch/encoded/*/index.json"))
    assert len(made) == bool(planted.eval_rows)  # which are encoded first


@pytest.mark.parametrize(
    "planted",
    [fault for fault in FATAL if fault.at == 3 and fault.kind.severity is Severity.ROW],
    ids=lambda planted: planted.id,
)
def test_a_bad_row_can_be_left_out(planted: Planted, tmp_path: Path, alone: Ranks) -> None:
    prepared = run(planted, tmp_path, alone, BadRows.SKIP)
    assert len(prepared.train) == 4
    assert prepared.train.lines.tolist() == [1, 2, 4, 5]
    assert prepared.train.places.tolist() == [0, 1, 3, 4]
    assert prepared.skipped == 1
    assert prepared.skipped_file is not None
    [skipped] = map(json.loads, prepared.skipped_file.read_text().splitlines())
    assert (skipped["uri"], skipped["row"]) == ("s3://d/train.jsonl", 3)
    assert planted.words in skipped["reason"]
    assert CANARY not in prepared.skipped_file.read_text()


@pytest.mark.parametrize(
    "planted",
    [fault for fault in FATAL if fault.kind.severity is Severity.FILE],
    ids=lambda planted: planted.id,
)
def test_a_bad_file_can_not_be_left_out(planted: Planted, tmp_path: Path, alone: Ranks) -> None:
    with pytest.raises(Failure) as caught:
        run(planted, tmp_path, alone, BadRows.SKIP)
    assert planted.words in caught.value.message


def test_a_file_of_bad_rows_can_not_be_left_out(tmp_path: Path, alone: Ranks) -> None:
    planted = bad_file(Kind.NO_GOOD_ROW, b'{"messages": []}\n' * 3)
    with pytest.raises(Failure) as caught:
        run(planted, tmp_path, alone, BadRows.SKIP)
    assert caught.value.message == "s3://d/train.jsonl: has no row that can be trained on"


@pytest.mark.parametrize("planted", WARNINGS, ids=lambda planted: planted.id)
def test_a_warning_is_told_and_the_row_trained_on(
    planted: Planted, tmp_path: Path, alone: Ranks, caplog: pytest.LogCaptureFixture
) -> None:
    prepared = run(planted, tmp_path, alone, BadRows.FAIL)
    assert len(prepared.train) == 5
    assert (prepared.skipped, prepared.skipped_file) == (0, None)
    [told, counted] = [record.getMessage() for record in caplog.records]
    assert told.startswith(f"s3://d/train.jsonl row {planted.at}: ")
    assert planted.words in told
    assert counted == f"1 rows of the train data: {planted.kind.meaning}"


def test_ignored_keys_are_counted_and_told(
    tmp_path: Path, alone: Ranks, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    train = b"".join(encoded({**good(number), "id": number}) for number in range(1200))
    planted = Planted(Kind.EMPTY_FILE, train, eval_rows=({**good(-1), "id": 1, "lang": "en"},))
    prepared = run(planted, tmp_path, alone, BadRows.FAIL)
    assert prepared.ignored == {"id": 1201, "lang": 1}
    assert "keys of rows that are ignored: id 1,200" in caplog.messages


@pytest.mark.parametrize(
    "content",
    [
        TEXT.removesuffix(b"\n"),
        TEXT.replace(b"\n", b"\r\n"),
        b"  " + TEXT,
        among({**good(9), "id": 4, "weights": None, "meta": {"role": [1]}}),
        among(row(("user", ""), ("assistant", "x"))),
        among(
            b'{"messages": [{"role": "user", "content": "\\ud83d\\ude00 \\\\ud83d"}, '
            b'{"role": "assistant", "content": "\\u2028."}]}\n'
        ),
    ],
    ids=["no-newline", "crlf", "leading-space", "other-fields", "empty-question", "pairs"],
)
def test_what_is_no_fault(content: bytes, tmp_path: Path, alone: Ranks) -> None:
    prepared = run(bad_file(Kind.EMPTY_FILE, content), tmp_path, alone, BadRows.FAIL)
    assert len(prepared.train) == content.rstrip().count(b"\n") + 1
    assert prepared.skipped == 0
