"""Curves reach a tracker once each, under one run, and its troubles reach nobody."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest

from finetune_contract.reasons import Reason
from finetune_trainer.course.telemetry import StepRecord
from support.services.trackers import MlflowServer, serving, until
from support.trainer.tracked_runs import CANARY, PROMPT, Runs, losses, train


@pytest.fixture
def mlflow() -> Iterator[MlflowServer]:
    server = MlflowServer()
    with serving(server):
        yield server


@pytest.fixture
def runs(tmp_path: Path, mlflow: MlflowServer) -> Runs:
    return Runs(tmp_path, "MLflow", mlflow.url)


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


def test_a_methods_own_metrics_reach_the_tracker_by_their_names(
    runs: Runs, mlflow: MlflowServer
) -> None:
    telemetry = runs.start()
    metrics = {"reward/mean": 0.25, "reward/short/mean": float("nan")}
    telemetry.step(StepRecord(1, 1.0, 0.5, 1e-4, 100, 50, 0.25, metrics))
    telemetry.close(Reason.SUCCEEDED)
    assert mlflow.metrics("reward/mean") == [(1, 0.25)]
    assert mlflow.metrics("reward/short/mean") == []


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
    runs: Runs, mlflow: MlflowServer, caplog: pytest.LogCaptureFixture, status: int
) -> None:
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
    runs: Runs, mlflow: MlflowServer, caplog: pytest.LogCaptureFixture
) -> None:
    mlflow.hang = Event()
    telemetry = runs.start(pace=PROMPT._replace(close=0.1))
    train(telemetry, 1, 3)
    until(lambda: mlflow.paths)
    began = time.monotonic()
    telemetry.close(Reason.SUCCEEDED)
    assert time.monotonic() - began < 5.0
    assert not mlflow.hang.is_set()
    assert "3 records did not reach the tracker" in caplog.text
    assert len(telemetry.snapshot().splitlines()) == 3


def test_no_server_at_all(runs: Runs, caplog: pytest.LogCaptureFixture) -> None:
    runs.tracking["uri"] = "http://127.0.0.1:9"
    telemetry = runs.start()
    train(telemetry, 1, 3)
    telemetry.close(Reason.SUCCEEDED)
    assert "http://127.0.0.1:9: ConnectError" in caplog.text
    assert "3 records did not reach the tracker" in caplog.text


def test_an_answer_is_read_to_a_bound(
    runs: Runs, mlflow: MlflowServer, caplog: pytest.LogCaptureFixture
) -> None:
    endless = {"experiment": "0" * 9 * 2**20}
    mlflow._experiments_get_by_name = lambda body: (200, endless)  # type: ignore[method-assign]
    runs.start().close(Reason.SUCCEEDED)
    assert f"training goes on: {mlflow.url} answers without end" in caplog.text


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


def test_user_and_password(runs: Runs, mlflow: MlflowServer) -> None:
    (runs.secret / "MLFLOW_TRACKING_TOKEN").unlink()
    (runs.secret / "MLFLOW_TRACKING_USERNAME").write_text("me")
    (runs.secret / "MLFLOW_TRACKING_PASSWORD").write_text(CANARY)
    runs.start().close(Reason.SUCCEEDED)
    basic = base64.b64encode(f"me:{CANARY}".encode()).decode()
    assert set(mlflow.authorizations) == {f"Basic {basic}"}


def test_renewed_keys_are_used(runs: Runs, mlflow: MlflowServer) -> None:
    telemetry = runs.start()
    until(lambda: mlflow.paths)
    (runs.secret / "MLFLOW_TRACKING_TOKEN").write_text("renewed")
    telemetry.close(Reason.SUCCEEDED)
    assert mlflow.authorizations[-1] == "Bearer renewed"


def test_a_key_that_can_not_be_is_named(
    runs: Runs, mlflow: MlflowServer, caplog: pytest.LogCaptureFixture
) -> None:
    (runs.secret / "MLFLOW_TRACKING_TOKEN").write_text(f"{CANARY} {CANARY}")
    runs.start().close(Reason.SUCCEEDED)
    assert "credentialsSecretRef: MLFLOW_TRACKING_TOKEN holds a space" in caplog.text
    assert CANARY not in caplog.text


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
