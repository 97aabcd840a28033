"""`finetune run` tells what a user who goes on with a run must know."""

from __future__ import annotations

from pathlib import Path

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


def run(directory: Path, seed: int, *options: str) -> str:
    """Run a job and return what stands on the terminal, as one line."""
    job = {
        "apiVersion": "finetune.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": "job"},
        "spec": {
            "model": {"uri": "s3://demo/model"},
            "data": {"train": [{"uri": "s3://demo/a.jsonl"}]},
            "output": {"uri": "s3://demo/out"},
            "training": {"seed": seed},
        },
    }
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
