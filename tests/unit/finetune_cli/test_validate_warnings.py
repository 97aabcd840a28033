"""`finetune validate` warns of what is allowed and hardly meant."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from finetune_cli.app import app
from support.operator.foreign_jobs import PLAIN

GRPO = "  method: {type: GRPO, grpo: {rewards: [{name: a, math: {}}]}}\n"


def validated(directory: Path, text: str) -> Result:
    path = directory / "job.yaml"
    path.write_text(text)
    return CliRunner().invoke(app, ["validate", str(path)])


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        (GRPO, "4:1", "spec.training.learningRate: not set"),
        (GRPO + "  training: {epochs: 2}\n", "9:3", "spec.training.learningRate: not set"),
        ('  training: {learningRate: "2e-3"}\n', "8:14", "learningRate: 2e-3 is more than"),
        ("  lora: {rank: 8, alpha: 128}\n", "8:19", "spec.lora.alpha: alpha / rank is 16"),
        ("  training: {epochs: 100}\n", "8:14", "after 100 passes"),
        ("status: {attempts: []}\n", "8:1", "status: is the operator's"),
    ],
)
def test_a_valid_job_may_be_warned_of(tmp_path: Path, text: str, place: str, words: str) -> None:
    result = validated(tmp_path, PLAIN + text)
    assert result.exit_code == 0, result.stderr
    [line] = result.stderr.splitlines()
    assert line.startswith(f"{tmp_path}/job.yaml:{place}: warning: ")
    assert words in line


@pytest.mark.parametrize(
    "text",
    [
        "",
        GRPO + '  training: {learningRate: "1e-5"}\n',
        '  training: {learningRate: "1e-3", epochs: 20}\n',
        "  lora: {rank: 8, alpha: 64}\n",
        "  lora: {rank: 1}\n",
        "  lora: {rank: 8, alpha: 128, rslora: true}\n",
    ],
)
def test_what_is_usual_is_not(tmp_path: Path, text: str) -> None:
    assert validated(tmp_path, PLAIN + text).stderr == ""


def test_many_passes_are_usual_where_they_end_by_themselves(tmp_path: Path) -> None:
    data = "train.jsonl}], eval: [{uri: s3://bucket/eval.jsonl}]"
    text = PLAIN.replace("train.jsonl}]", data) + "  training: {epochs: 100}\n"
    assert "100 passes" in validated(tmp_path, text).stderr
    stops = "  eval: {everySteps: 5, patience: 3}\n"
    assert validated(tmp_path, text + stops).stderr == ""


def test_warnings_stand_beside_errors(tmp_path: Path) -> None:
    result = validated(tmp_path, PLAIN + "  training: {epochs: 100, seeds: 1}\n")
    assert result.exit_code == 3
    refused, warned = result.stderr.splitlines()
    assert refused.endswith("spec.training.seeds: unknown field; did you mean seed?")
    assert "warning: spec.training.epochs" in warned
