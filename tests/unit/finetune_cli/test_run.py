"""`finetune run` tells what a user who goes on with a run must know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from finetune_cli.app import app
from finetune_contract.reasons import Reason, exit_code
from finetune_contract.result import Outcome, Result

STOPPED = Result(attempt=1, outcome=Outcome.FAILED, reason=Reason.INTERRUPTED, message="stopped")


@pytest.fixture(autouse=True)
def _no_trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("finetune_local.run.execute", lambda run, on_progress: STOPPED)


def _job(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "finetune.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": "job"},
        "spec": {
            "model": {"uri": "s3://demo/model"},
            "data": {"train": [{"uri": "s3://demo/a.jsonl"}]},
            "output": {"uri": "s3://demo/out"},
            **spec,
        },
    }


def run(directory: Path, seed: int, *options: str) -> str:
    """Run a job and return what stands on the terminal, as one line."""
    job = _job(training={"seed": seed})
    (directory / "job.yaml").write_text(yaml.safe_dump(job))
    ended = CliRunner().invoke(app, ["run", str(directory / "job.yaml"), *options])
    assert ended.exit_code == exit_code(Reason.INTERRUPTED), ended.stderr
    return " ".join(ended.stderr.split())


def test_a_run_that_goes_on_with_another_file_says_where_it_starts(tmp_path: Path) -> None:
    assert "the file is not the one" not in run(tmp_path, 1)
    [directory] = (tmp_path / "state").rglob("runs/*/")
    resume = ("--resume", directory.name)
    assert "the file is not the one" not in run(tmp_path, 1, *resume)
    told = run(tmp_path, 2, *resume)
    assert "not the one that the run was started with (training.seed)" in told
    assert "without one the run starts at step 0" in told


CODE = "def score(completions, **kwargs):\n    return [1.0] * len(completions)\n"
REWARD = {"name": "mine", "python": {"configMap": {"name": "code", "key": "score.py"}}}


def _grpo(directory: Path, *options: str, config_map: bool) -> tuple[int, str]:
    job = _job(method={"type": "GRPO", "grpo": {"rewards": [REWARD]}})
    code = {"kind": "ConfigMap", "metadata": {"name": "code"}, "data": {"score.py": CODE}}
    documents = [code, job] if config_map else [job]
    (directory / "job.yaml").write_text(yaml.safe_dump_all(documents))
    ended = CliRunner().invoke(app, ["run", str(directory / "job.yaml"), *options])
    return ended.exit_code, " ".join(ended.stderr.split())


def _sources(directory: Path) -> list[str]:
    return [path.read_text() for path in (directory / "state").rglob("rewards/mine.py")]


def test_the_code_of_a_reward_is_that_of_the_config_map_beside_the_job(tmp_path: Path) -> None:
    code, _ = _grpo(tmp_path, config_map=True)
    assert code == exit_code(Reason.INTERRUPTED), "it came as far as the trainer"
    assert _sources(tmp_path) == [CODE]


def test_the_code_of_a_reward_may_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("own = 1\n")
    _grpo(tmp_path, "--source", f"mine={tmp_path / 'own.py'}", config_map=True)
    assert _sources(tmp_path) == ["own = 1\n"]


def test_code_that_is_nowhere_is_asked_for(tmp_path: Path) -> None:
    code, told = _grpo(tmp_path, config_map=False)
    assert code == 3
    assert "reward mine: its code is not here" in told
    assert "--source mine=FILE" in told
    assert _sources(tmp_path) == []


def test_a_source_without_a_name_is_refused(tmp_path: Path) -> None:
    code, told = _grpo(tmp_path, "--source", "own.py", config_map=True)
    assert code == 2
    assert "is not NAME=FILE" in told


def test_a_job_may_come_from_stdin_with_its_code(tmp_path: Path) -> None:
    job = _job(method={"type": "GRPO", "grpo": {"rewards": [REWARD]}})
    code = {"kind": "ConfigMap", "metadata": {"name": "code"}, "data": {"score.py": CODE}}
    ended = CliRunner().invoke(app, ["run", "-"], input=yaml.safe_dump_all([code, job]))
    assert ended.exit_code == exit_code(Reason.INTERRUPTED), "it came as far as the trainer"
    assert _sources(tmp_path) == [CODE]
    ended = CliRunner().invoke(app, ["run", "-"], input=yaml.safe_dump(job))
    assert ended.exit_code == 3
    assert "stdin: reward mine: its code is not here" in ended.stderr
