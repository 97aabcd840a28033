"""`finetune validate`: what it accepts, what it refuses, and with which exit code."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from finetune_cli.app import app

JOBS = Path(__file__).parents[2] / "jobs"
EXAMPLES = sorted((Path(__file__).parents[3] / "examples").glob("*.yaml"))
GOOD = JOBS / "good" / "shortest.yaml"


def _validate(*arguments: str, stdin: str | None = None):
    return CliRunner().invoke(app, ["validate", *arguments], input=stdin)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_every_example_is_valid(path: Path) -> None:
    result = _validate(str(path))
    assert result.exit_code == 0, result.stderr
    assert "is valid" in result.stdout


def test_a_refused_job_is_named_with_field_and_remedy() -> None:
    bad = JOBS / "bad" / "epochs-and-max-steps.yaml"
    result = _validate(str(GOOD), str(bad))
    assert result.exit_code == 3
    assert f"{GOOD}: finetunejob/job is valid" in result.stdout
    assert f"{bad}:10:25: spec.training.maxSteps" in result.stderr
    assert "not both" in result.stderr


def test_stdin_and_other_kinds_beside_jobs() -> None:
    text = "kind: ConfigMap\n---\n" + GOOD.read_text()
    assert _validate("-", stdin=text).exit_code == 0


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"kind: ConfigMap\n", "holds no FineTuneJob; it holds ConfigMap"),
        (b"", "holds no FineTuneJob"),
        (b"a: [", "is not YAML"),
        (b"a: 1\na: 2\n", "duplicate key"),
        (b"\xff\xfe", "is not UTF-8"),
        (b"- just\n- a list\n", "must be a mapping"),
        (b"kind: [a]\n", "holds no FineTuneJob; it holds ['a']"),
        (b'kind: "\\e[2J\\ud800"\n', "it holds \\x1b[2J\\ud800"),
    ],
)
def test_what_is_no_job_file(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "job.yaml"
    path.write_bytes(content)
    result = _validate(str(path))
    assert result.exit_code == 3
    assert says in result.stderr


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    result = _validate(str(tmp_path / "none.yaml"))
    assert result.exit_code == 3
    assert "none.yaml: No such file" in result.stderr
