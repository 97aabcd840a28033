"""The first prompts of a file, for the rewards to be tried on."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from finetune_contract.reasons import Reason, exit_code
from finetune_contract.recipe import Columns, DataSource, FileFormat
from finetune_contract.result import decode
from finetune_trainer.process.errors import Failure
from finetune_trainer.sample_rows import main, sample


def file(directory: Path, *lines: object) -> str:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (directory / "rows.jsonl").write_text("".join(f"{text}\n" for text in texts))
    return (directory / "rows.jsonl").as_uri()


def row(number: int) -> dict[str, object]:
    return {"prompt": f"{number}?", "answer": number}


def test_the_first_prompts_are_taken_as_the_rewards_get_them(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "two?"}]
    uri = file(tmp_path, row(1), {"messages": turns, "level": "easy"}, row(3))
    assert [json.loads(text) for text in sample(DataSource(uri=uri), None, 2)] == [
        {"prompt": "1?", "columns": {"answer": 1}},
        {"prompt": turns, "columns": {"level": "easy"}},
    ]


def test_the_last_line_needs_no_end(tmp_path: Path) -> None:
    uri = file(tmp_path, row(1))
    (tmp_path / "rows.jsonl").write_text(json.dumps(row(1)))
    assert len(sample(DataSource(uri=uri), None, 5)) == 1


def test_files_of_other_kinds_are_sampled_too(tmp_path: Path) -> None:
    rows = [row(number) for number in range(3)]
    for name, content in {
        "marked.jsonl": b"\xef\xbb\xbf\n" + "\n \n".join(map(json.dumps, rows)).encode(),
        "array.json": json.dumps(rows, indent=1).encode(),
        "packed.jsonl.gz": gzip.compress("\n".join(map(json.dumps, rows)).encode()),
    }.items():
        (tmp_path / name).write_bytes(content)
        source = DataSource(uri=(tmp_path / name).as_uri())
        columns = [json.loads(text)["columns"]["answer"] for text in sample(source, None, 8)]
        assert columns == [0, 1, 2], name
    (tmp_path / "a.txt").write_bytes(b"prompt\tanswer\n1?\t1\n")
    said = DataSource(uri=(tmp_path / "a.txt").as_uri(), file_format=FileFormat.TSV)
    assert sample(said, None, 1) == ['{"prompt":"1?","columns":{"answer":"1"}}']


def test_bad_rows_are_passed_over(tmp_path: Path) -> None:
    uri = file(tmp_path, "{", {"prompt": ""}, row(3))
    assert [json.loads(text)["prompt"] for text in sample(DataSource(uri=uri), None, 5)] == ["3?"]


def test_a_file_of_bad_rows_is_not_read_to_its_end(tmp_path: Path) -> None:
    uri = file(tmp_path, *["{"] * 16, row(17))
    with pytest.raises(Failure, match=r"rows.jsonl holds no prompt .* its first row is not JSON"):
        sample(DataSource(uri=uri), None, 2)
    assert len(sample(DataSource(uri=uri), None, 3)) == 1


@pytest.mark.parametrize(
    ("text", "reason", "says"),
    [
        ("", Reason.DATA_INVALID, "is empty"),
        ("[{", Reason.DATA_INVALID, "is not one JSON array"),
        (None, Reason.DATA_NOT_FOUND, "spec.data"),
    ],
)
def test_a_file_that_can_not_be_read_is_named(
    tmp_path: Path, text: str | None, reason: Reason, says: str
) -> None:
    if text is not None:
        (tmp_path / "rows.jsonl").write_text(text)
    with pytest.raises(Failure, match=says) as raised:
        sample(DataSource(uri=(tmp_path / "rows.jsonl").as_uri()), None, 2)
    assert raised.value.reason is reason
    assert "rows.jsonl" in raised.value.message


def test_the_command_writes_rows_or_a_result(tmp_path: Path) -> None:
    uri = file(tmp_path, row(1), row(2))
    files = [f"--output={tmp_path / 'out'}", f"--termination-log={tmp_path / 'told'}"]
    assert main([f"--source={DataSource(uri=uri).to_json()}", *files]) == 0
    assert len((tmp_path / "out").read_text().splitlines()) == 2
    assert main([f"--source={DataSource(uri=uri + 'x').to_json()}", *files]) == exit_code(
        Reason.DATA_NOT_FOUND
    )
    told = decode((tmp_path / "told").read_text())
    assert told is not None
    assert told.reason is Reason.DATA_NOT_FOUND


def test_columns_of_other_names_are_read_as_the_job_reads_them(tmp_path: Path) -> None:
    uri = file(tmp_path, {"q": "2+3?", "a": "5"})
    out = tmp_path / "out"
    words = [f"--source={DataSource(uri=uri).to_json()}", f"--output={out}"]
    assert main([*words, f"--columns={Columns(prompt='q').to_json()}"]) == 0
    assert json.loads(out.read_text()) == {"prompt": "2+3?", "columns": {"a": "5"}}


def test_rows_of_every_file_are_taken(tmp_path: Path) -> None:
    """The rewards of a mixture may each need a column that only one file has."""
    uris = []
    for name in "abc":
        (tmp_path / name).mkdir()
        uris.append(file(tmp_path / name, *({"prompt": f"{name}{i}?"} for i in range(9))))
    out = tmp_path / "out"
    assert (
        main([*(f"--source={DataSource(uri=uri).to_json()}" for uri in uris), f"--output={out}"])
        == 0
    )
    prompts = [json.loads(line)["prompt"] for line in out.read_text().splitlines()]
    assert prompts == [f"{name}{i}?" for name in "abc" for i in range(3)]


def test_it_does_without_torch() -> None:
    code = "import sys, finetune_trainer.sample_rows; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
