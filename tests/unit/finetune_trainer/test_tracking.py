"""Curves reach a tracker once each, under one run, and its troubles reach nobody."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from finetune_contract.reasons import Reason
from finetune_trainer import tracking
from finetune_trainer.telemetry import StepRecord, Telemetry
from finetune_trainer.tracking import flatten
from support.tracking_servers import MlflowServer, WandbServer, serving, until
from support.trainer_runs import run_config

CANARY = "canary01234567890123456789012345678901234567"[:40]  # as long as W&B's keys


@pytest.fixture(autouse=True)
def prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send at once, and wait for what would be given up on a busy machine."""
    monkeypatch.setattr(tracking, "SEND_SECONDS", 0.02)
    monkeypatch.setattr(tracking, "CLOSE_SECONDS", 60.0)


@pytest.fixture
def mlflow() -> Iterator[MlflowServer]:
    server = MlflowServer()
    with serving(server):
        yield server


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    directory = tmp_path / "secret"
    directory.mkdir()
    (directory / "MLFLOW_TRACKING_TOKEN").write_text(CANARY + "\n")
    (directory / "WANDB_API_KEY").write_text(CANARY + "\n")
    return directory


class Runs:
    """Starts attempts of one job with a tracker."""

    def __init__(self, directory: Path, kind: str, uri: str | None, secret: Path) -> None:
        self.directory, self.secret = directory, secret
        self.tracking = {"type": kind, "project": "team", **({"uri": uri} if uri else {})}

    def start(self, attempt: int = 1, step: int = 0, **kept: Any) -> Telemetry:
        config = run_config(
            self.directory / f"attempt-{attempt}",
            data="s3://user:hidden@bucket/train.jsonl?signature=hidden",
            attempt=attempt,
            tracking=self.tracking,
            credentials={"tracking": str(self.secret)},
        )
        kept = {"run_id": None, "history": None, **kept}
        return Telemetry.start(config, step=step, **kept)


@pytest.fixture
def runs(tmp_path: Path, mlflow: MlflowServer, secret: Path) -> Runs:
    return Runs(tmp_path, "MLflow", mlflow.url, secret)


def step(number: int) -> StepRecord:
    return StepRecord(number, 1 / number, 0.5, 1e-4, 100, 50, 0.25)


def train(telemetry: Telemetry, first: int, last: int) -> None:
    for number in range(first, last + 1):
        telemetry.step(step(number))


def losses(first: int, last: int) -> list[tuple[int, float]]:
    return [(number, 1 / number) for number in range(first, last + 1)]


def test_all_curves_and_the_recipe_reach_mlflow(runs: Runs, mlflow: MlflowServer) -> None:
    telemetry = runs.start()
    train(telemetry, 1, 450)  # more than fits into one request
    telemetry.evaluated(450, 0.25)
    telemetry.close(Reason.SUCCEEDED)
    assert mlflow.metrics("train/loss") == losses(1, 450)
    assert mlflow.metrics("train/tokens_per_second")[0] == (1, 400.0)
    assert mlflow.metrics("eval/loss") == [(450, 0.25)]
    [run] = mlflow.runs.values()
    assert run["status"] == "FINISHED"
    assert all(run[time] > 1e12 for time in ("start_time", "end_time"))  # ms since the epoch
    assert run["metrics"][-1]["timestamp"] > 1e12
    assert run["run_name"] == "tiny"
    assert list(mlflow.experiments) == ["team"]
    assert run["params"]["training.globalBatchSize"] == "8"
    assert run["params"]["data.train.0.uri"] == "s3://bucket/train.jsonl"
    assert run["tags"]["finetune.dev/job"] == "tests/tiny"
    assert "hidden" not in str(run)
    assert set(mlflow.authorizations) == {f"Bearer {CANARY}"}


@pytest.mark.parametrize("known", [True, False])
def test_the_next_attempt_goes_on_in_the_same_run(
    runs: Runs, mlflow: MlflowServer, known: bool
) -> None:
    """Also when the first was lost before any checkpoint could keep the run's id."""
    first = runs.start()
    train(first, 1, 6)
    first.evaluated(6, 0.5)
    history = first.snapshot()
    train(first, 7, 9)
    first.close(Reason.INTERRUPTED)
    assert mlflow.runs["run-1"]["status"] == "KILLED"
    assert first.run_id == "run-1"
    second = runs.start(2, step=6, history=history, run_id="run-1" if known else None)
    train(second, 7, 12)
    second.evaluated(12, 0.25)
    second.close(Reason.SUCCEEDED)
    assert second.run_id == "run-1"
    assert mlflow.metrics("train/loss") == losses(1, 12)
    assert mlflow.metrics("eval/loss") == [(6, 0.5), (12, 0.25)]
    assert mlflow.runs["run-1"]["tags"]["finetune.dev/attempt"] == "2"
    assert mlflow.runs["run-1"]["status"] == "FINISHED"


def test_what_an_attempt_could_not_deliver_the_next_one_does(
    runs: Runs, mlflow: MlflowServer
) -> None:
    mlflow.status = 503
    first = runs.start()
    train(first, 1, 6)
    first.close(Reason.INTERRUPTED)
    mlflow.status = None
    second = runs.start(2, step=6, history=first.snapshot())
    train(second, 7, 8)
    second.close(Reason.SUCCEEDED)
    assert mlflow.metrics("train/loss") == losses(1, 8)


def test_a_deleted_run_is_left_alone(runs: Runs, mlflow: MlflowServer) -> None:
    first = runs.start()
    first.close(Reason.INTERRUPTED)
    mlflow.runs["run-1"] |= {"lifecycle_stage": "deleted", "tags": {}}
    second = runs.start(2, run_id="run-1")
    second.close(Reason.SUCCEEDED)
    assert second.run_id == "run-2"


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        (Reason.SUCCEEDED, "FINISHED"),
        (Reason.INTERRUPTED, "KILLED"),
        (Reason.STORAGE_UNAVAILABLE, "KILLED"),
        (Reason.NON_FINITE_LOSS, "FAILED"),
    ],
)
def test_the_end_is_told(runs: Runs, mlflow: MlflowServer, reason: Reason, status: str) -> None:
    runs.start().close(reason)
    [run] = mlflow.runs.values()
    assert run["status"] == status


@pytest.mark.parametrize("status", [401, 403, 429, 500, 302])
def test_an_outage_is_told_and_made_up_for(
    runs: Runs,
    mlflow: MlflowServer,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
) -> None:
    monkeypatch.setattr(tracking, "LONGEST_WAIT_SECONDS", 0.05)
    telemetry = runs.start()
    train(telemetry, 1, 2)
    until(lambda: mlflow.runs and len(mlflow.metrics("train/loss")) == 2)
    mlflow.status = status
    before = len(mlflow.paths)
    train(telemetry, 3, 6)
    until(lambda: len(mlflow.paths) >= before + 2)
    mlflow.status = None
    telemetry.close(Reason.SUCCEEDED)
    assert mlflow.metrics("train/loss") == losses(1, 6)
    assert caplog.text.count("tracking failed, training goes on") == 1
    assert f"answered {status}" in caplog.text
    assert ("spec.tracking.credentialsSecretRef" in caplog.text) == (status in (401, 403))
    assert CANARY not in caplog.text


def test_a_server_that_hangs_holds_nobody(
    runs: Runs,
    mlflow: MlflowServer,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tracking, "CLOSE_SECONDS", 0.1)
    mlflow.hang = Event()
    telemetry = runs.start()
    train(telemetry, 1, 3)
    until(lambda: mlflow.paths)
    telemetry.close(Reason.SUCCEEDED)
    assert not mlflow.hang.is_set()
    assert "3 records did not reach the tracker" in caplog.text
    assert len(telemetry.snapshot().splitlines()) == 3


def test_no_server_at_all(runs: Runs, caplog: pytest.LogCaptureFixture) -> None:
    runs.tracking["uri"] = "http://user:hidden@127.0.0.1:9"
    telemetry = runs.start()
    train(telemetry, 1, 3)
    telemetry.close(Reason.SUCCEEDED)
    assert "http://127.0.0.1:9: ConnectError" in caplog.text
    assert "3 records did not reach the tracker" in caplog.text
    assert "hidden" not in caplog.text


def test_points_that_the_server_refuses_are_counted(
    runs: Runs, mlflow: MlflowServer, caplog: pytest.LogCaptureFixture
) -> None:
    mlflow.refuse_metric = "eval/loss"
    telemetry = runs.start()
    telemetry.evaluated(1, 0.5)
    until(lambda: mlflow.paths.count("/api/2.0/mlflow/runs/log-batch") >= 3)
    train(telemetry, 2, 3)
    telemetry.close(Reason.SUCCEEDED)
    assert "answered 400" in caplog.text
    assert "1 records did not reach the tracker" in caplog.text
    assert mlflow.metrics("train/loss") == losses(2, 3)


def test_user_and_password(runs: Runs, mlflow: MlflowServer, secret: Path) -> None:
    (secret / "MLFLOW_TRACKING_TOKEN").unlink()
    (secret / "MLFLOW_TRACKING_USERNAME").write_text("me")
    (secret / "MLFLOW_TRACKING_PASSWORD").write_text(CANARY)
    runs.start().close(Reason.SUCCEEDED)
    basic = base64.b64encode(f"me:{CANARY}".encode()).decode()
    assert set(mlflow.authorizations) == {f"Basic {basic}"}


def test_renewed_keys_are_used(runs: Runs, mlflow: MlflowServer, secret: Path) -> None:
    telemetry = runs.start()
    until(lambda: mlflow.paths)
    (secret / "MLFLOW_TRACKING_TOKEN").write_text("renewed")
    telemetry.close(Reason.SUCCEEDED)
    assert mlflow.authorizations[-1] == "Bearer renewed"


def test_what_a_library_raises_ends_no_thread(
    runs: Runs, mlflow: MlflowServer, caplog: pytest.LogCaptureFixture
) -> None:
    mlflow.experiments["team"] = CANARY  # not what the API promises
    mlflow._experiments_get_by_name = lambda body: (200, {CANARY: 1})  # type: ignore[method-assign]
    telemetry = runs.start()
    train(telemetry, 1, 2)
    telemetry.close(Reason.SUCCEEDED)
    assert "tracking failed, training goes on: KeyError" in caplog.text
    assert CANARY not in caplog.text


def test_tensorboard_reads_the_event_files(tmp_path: Path, secret: Path) -> None:
    runs = Runs(tmp_path, "TensorBoard", None, secret)
    first = runs.start()
    train(first, 1, 6)
    history = first.snapshot()
    train(first, 7, 8)
    first.close(Reason.INTERRUPTED)
    second = runs.start(2, step=6, history=history)
    train(second, 7, 9)
    second.evaluated(9, 0.5)
    directory = second.history.parent
    second._delivery.flush(10)  # type: ignore[union-attr]
    events = EventAccumulator(str(directory / "tensorboard"))
    events.Reload()
    assert [(e.step, round(e.value, 6)) for e in events.Scalars("train/loss")] == [
        (number, round(value, 6)) for number, value in losses(1, 9)
    ]
    assert [(e.step, e.value) for e in events.Scalars("eval/loss")] == [(9, 0.5)]
    assert second.run_id is None
    second.close(Reason.SUCCEEDED)


def test_wandb_by_its_own_client(
    tmp_path: Path,
    secret: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("finetune_trainer.trackers.wandb.FINISH_SECONDS", 60.0)
    server = WandbServer()
    with serving(server):
        runs = Runs(tmp_path, "WandB", server.url, secret)
        runs.tracking["project"] = "group/team"
        first = runs.start()
        train(first, 1, 6)
        first.close(Reason.SUCCEEDED)
        assert server.exit_code == 0
        second = runs.start(2, step=4, history=_head(first, 4))
        train(second, 5, 8)
        until(lambda: second.run_id)
        environments = _children_environments()
        second.close(Reason.NON_FINITE_LOSS)
    assert [(row["_step"], row["train/loss"]) for row in server.rows] == losses(1, 8)
    assert server.exit_code == 1
    assert server.variables["name"] == "uid-1"
    assert (server.variables["project"], server.variables["entity"]) == ("team", "group")
    assert '"training.globalBatchSize"' in server.variables["config"]
    basic = base64.b64encode(f"api:{CANARY}".encode()).decode()
    assert set(server.authorizations) <= {f"Basic {basic}", None}
    assert environments
    assert CANARY not in environments
    assert CANARY not in caplog.text


def _head(telemetry: Telemetry, count: int) -> bytes:
    return b"".join(telemetry.snapshot().splitlines(keepends=True)[:count])


def _children_environments() -> str:
    listed = subprocess.run(["pgrep", "wandb-core"], capture_output=True, text=True, check=True)
    return "".join(
        Path("/proc", pid, part).read_text(errors="replace")
        for pid in listed.stdout.split()
        for part in ("environ", "cmdline")
    )


def test_nested_values_have_dotted_names() -> None:
    nested = {"a": {"b": [1, {"c": True}], "uri": "https://u:p@host/x?k=v"}, "d": "t"}
    assert flatten(nested) == {"a.b.0": "1", "a.b.1.c": "True", "a.uri": "https://host/x", "d": "t"}
