"""`finetune data check`: what the trainer would refuse, in the same words, without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from finetune_cli.app import app
from finetune_cli.data import LISTED
from finetune_contract.recipe import MethodType
from finetune_trainer.data.faults import Kind
from support.models.faulty_files import (
    CANARY,
    ENCODED,
    PROMPTS,
    STRUCTURAL,
    TEXT,
    WARNINGS,
    Planted,
    among,
    encoded,
    good,
)


def check(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["data", "check", *map(str, arguments)])


def report(planted: Planted, directory: Path, *, model: bool) -> tuple[int, dict[str, Any]]:
    train, held_out = planted.write(directory)
    arguments: list[str | Path] = [train, "--json"]
    if held_out:
        arguments += ["--eval", held_out]
    if model:
        arguments += ["--model", planted.model(directory.parent), "--sequence-length", "256"]
    result = check(*arguments)
    return result.exit_code, json.loads(result.stdout)


@pytest.mark.parametrize("planted", STRUCTURAL, ids=lambda planted: planted.id)
def test_structural_faults_need_no_model(planted: Planted, tmp_path: Path) -> None:
    code, found = report(planted, tmp_path, model=False)
    assert code == 3
    assert not found["ok"]
    assert found["counts"] == {planted.kind: 1}
    [fault] = found["faults"]
    assert fault["file"] == str(tmp_path / "train.jsonl")
    assert (fault["row"], fault["kind"]) == (planted.at, planted.kind)
    assert fault["severity"] == planted.kind.severity
    assert planted.words in fault["reason"]
    assert CANARY not in json.dumps(found)


@pytest.mark.parametrize("planted", ENCODED, ids=lambda planted: planted.id)
def test_a_tokenizer_finds_the_rest(planted: Planted, tmp_path: Path) -> None:
    assert report(planted, tmp_path, model=False)[1]["ok"]
    code, found = report(planted, tmp_path, model=True)
    assert code == 3
    [fault] = found["faults"]
    assert (fault["row"], fault["kind"]) == (planted.at, planted.kind)
    assert planted.words in fault["reason"]
    assert CANARY not in json.dumps(found)


@pytest.mark.parametrize(
    "planted",
    [planted for planted in PROMPTS if planted.kind is not Kind.MISSING_COLUMN],
    ids=lambda planted: planted.id,
)
def test_prompts_are_checked_for_grpo(planted: Planted, tmp_path: Path) -> None:
    train, _ = planted.write(tmp_path)
    model = planted.model(tmp_path.parent)
    room = ["--sequence-length", "256", "--max-tokens", "64"]
    result = check(train, "--json", "--method", "GRPO", "--model", model, *room)
    assert result.exit_code == 3
    [fault] = json.loads(result.stdout)["faults"]
    assert (fault["row"], fault["kind"]) == (planted.at, planted.kind)
    assert planted.words in fault["reason"]


@pytest.mark.parametrize("planted", WARNINGS, ids=lambda planted: planted.id)
def test_warnings_are_no_faults(planted: Planted, tmp_path: Path) -> None:
    code, found = report(planted, tmp_path, model=True)
    assert code == 0
    assert found["ok"]
    [fault] = found["faults"]
    assert (fault["row"], fault["severity"]) == (planted.at, "Warning")


def test_a_table_for_people(tmp_path: Path) -> None:
    path = tmp_path / "t[1].jsonl"
    path.write_bytes(among({"messages": [1]}))
    result = check(path)
    assert result.exit_code == 3
    lines = result.stdout.splitlines()
    assert any("fault" in line and "WrongType" in line and "messages[0]" in line for line in lines)
    assert f"{path}: 4 of 5 rows can be trained on" in result.stdout.replace("\n", "")
    path.write_bytes(TEXT)
    assert check(path).stdout == f"{path}: 4 of 4 rows can be trained on\n"


JOB = """
kind: FineTuneJob
apiVersion: finetune.dev/v1alpha1
metadata: {name: job}
spec:
  model: {uri: s3://demo/model}
  data: {train: [{uri: URI}], columns: {completion: chosen}}
  training: {sequenceLength: 8}
  output: {uri: s3://demo/out}
"""


def test_a_job_says_how_its_data_is_read(tmp_path: Path) -> None:
    train, job = tmp_path / "t.jsonl", tmp_path / "job.yaml"
    train.write_bytes(encoded({"prompt": "2+3?", "chosen": "5", "rejected": "6"}))
    job.write_text(JOB.replace("URI", f"file://{train}"))
    assert check(train).exit_code == 3
    assert check(job).exit_code == 0
    model = WARNINGS[0].model(tmp_path)
    found = json.loads(check(job, "--model", model, "--json").stdout)
    assert found["counts"] == {"TooLong": 1}
    assert found["files"][0]["file"] == str(train)
    own = "{uri: s3://demo/model, chatTemplate: {inline: \"{{ raise_exception('no') }}\"}}"
    job.write_text(JOB.replace("URI", f"file://{train}").replace("{uri: s3://demo/model}", own))
    assert json.loads(check(job, "--model", model, "--json").stdout)["counts"] == {
        "TemplateRefuses": 1
    }
    job.write_text(JOB.replace("URI", "s3://demo/t.jsonl"))
    away = check(job)
    assert away.exit_code == 3
    assert "s3://demo/t.jsonl is not on this machine; give the files" in away.stderr
    assert check(job, train).exit_code == 0
    two = check(job, train, train)
    assert two.exit_code == 3
    assert "names 1 such files, but 2 are given" in two.stderr


def test_files_are_converted_whole_or_not_at_all(tmp_path: Path) -> None:
    one, two, out = tmp_path / "a.jsonl", tmp_path / "b.jsonl", tmp_path / "out.jsonl"
    one.write_bytes(encoded({"instruction": "2+3?", "input": "", "output": "5", "id": 1}))
    two.write_bytes(TEXT)
    arguments = ["data", "convert", str(one), str(two), "-o", str(out)]
    result = CliRunner().invoke(app, arguments)
    assert result.stdout == f"ignored: id 1\n{out}: 5 rows\n"
    first, *others = map(json.loads, out.read_text().splitlines())
    assert first["messages"][1] == {"role": "assistant", "content": "5"}
    assert others == [good(number) for number in range(4)]
    out.unlink()
    two.write_bytes(TEXT + b"{}\n")
    refused = CliRunner().invoke(app, arguments)
    assert refused.exit_code == 3
    assert f"{two} row 5: has neither messages" in refused.stderr
    assert sorted(tmp_path.iterdir()) == [one, two]


def test_files_of_both_forms_are_converted_to_messages(tmp_path: Path) -> None:
    one, two, out = tmp_path / "a.jsonl", tmp_path / "b.jsonl", tmp_path / "out.jsonl"
    one.write_bytes(encoded({"prompt": "2+3?", "completion": "5"}))
    two.write_bytes(encoded({"instruction": "2+4?", "output": "6"}))
    for files in ((one, two), (two, one)):
        arguments = ["data", "convert", *map(str, files), "-o", str(out)]
        assert CliRunner().invoke(app, arguments).exit_code == 0
        assert all("messages" in json.loads(line) for line in out.read_text().splitlines())
        assert check(out).exit_code == 0
    CliRunner().invoke(app, ["data", "convert", str(one), "-o", str(out)])
    assert json.loads(out.read_text()) == {"prompt": "2+3?", "completion": "5"}


def test_ignored_keys_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(b"".join(encoded({**good(number), "id": number}) for number in range(1000)))
    assert check(path).stdout.startswith("ignored: id 1,000\n")
    assert json.loads(check(path, "--json").stdout)["ignored"] == {"id": 1000}


def test_many_faults_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(b"[1]\n" + b"{}\n" * 59)
    result = check(path)
    assert result.stdout.count("│ fault") == 50
    assert "and 10 more; of each kind:" in result.stdout
    assert "59  MissingField" in result.stdout
    path.write_bytes(b"[1]\n" + b"{}\n" * LISTED)
    found = json.loads(check(path, "--json").stdout)
    assert len(found["faults"]) == LISTED
    assert found["counts"] == {"NotAnObject": 1, "MissingField": LISTED}


def test_duplicates_are_found_between_files(tmp_path: Path) -> None:
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    first.write_bytes(TEXT)
    second.write_bytes(encoded(good(9)) + encoded(good(0)))
    [fault] = json.loads(check(first, second, "--json").stdout)["faults"]
    assert (fault["file"], fault["row"]) == (str(second), 2)
    assert fault["reason"] == f"is {first} row 1 again"


def test_the_format_can_be_set(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(TEXT)
    assert check(path, "--format", "Messages").exit_code == 0
    result = check(path, "--format", "PromptCompletion", "--json")
    assert json.loads(result.stdout)["counts"] == {"MixedFormats": 4}


def test_the_sequence_length_is_the_jobs(tmp_path: Path) -> None:
    path, _ = WARNINGS[0].write(tmp_path)
    model = WARNINGS[0].model(tmp_path)
    assert check(path, "--model", model, "--sequence-length", "8").exit_code == 3
    assert check(path, "--model", model).exit_code == 0


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    result = check(tmp_path / "none.jsonl")
    assert result.exit_code == 3
    assert "none.jsonl: No such file" in result.stderr


@pytest.mark.parametrize("method", MethodType)
def test_a_tokenizer_of_another_model_is_named(tmp_path: Path, method: MethodType) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"prompt": "What is red?", "completion": "Rust."}))
    model = WARNINGS[0].model(tmp_path)
    (model / "config.json").write_text('{"vocab_size": 20}')
    result = check(path, "--model", model, "--method", method)
    assert result.exit_code == 3
    assert "but the model has 20 " in result.stderr


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(TEXT)
    result = check(path, "--model", tmp_path)
    assert result.exit_code == 3
    assert "tokenizer can not be loaded" in result.stderr


LAPTOP = """
import sys
absent = ("numpy", "torch", "transformers", "jinja2", "filelock", "tokenizers")
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
from finetune_cli.app import main
main()
"""


def test_a_laptop_needs_the_base_wheel_only(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(TEXT)
    command = [sys.executable, "-c", LAPTOP, "data", "check", str(path)]
    plain = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (plain.returncode, plain.stderr) == (0, "")
    assert "4 of 4 rows" in plain.stdout
    asked = subprocess.run(
        [*command, "--model", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert asked.returncode == 2
    assert 'install it with: python -m pip install "finetune-operator[trainer]"' in asked.stderr
