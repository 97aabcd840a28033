"""metrics.jsonl: every step once, over all attempts, and never a reason to stop."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from finetune_contract.reasons import Reason
from finetune_trainer.course.telemetry import StepRecord, Telemetry
from support.trainer.runs import run_config
from unit.finetune_trainer.course.test_report import FACTS


def start(directory: Path, attempt: int = 1, step: int = 0, **kept: Any) -> Telemetry:
    config = run_config(directory, attempt=attempt)
    telemetry = Telemetry(config, {})
    telemetry.go_on(**{"run_id": None, "history": b"", "step": step, **kept})
    return telemetry


def record(number: int, **changes: Any) -> StepRecord:
    values = {"loss": 2.0, "grad_norm": 0.5, "learning_rate": 1e-4, "tokens": 300}
    return StepRecord(
        **{"step": number, **values, "supervised_tokens": 100, "seconds": 0.5, **changes}
    )


def records(telemetry: Telemetry) -> list[dict[str, Any]]:
    return [json.loads(line) for line in telemetry.snapshot().splitlines()]


def test_a_step_and_an_evaluation(tmp_path: Path) -> None:
    telemetry = start(tmp_path)
    telemetry.step(record(1))
    telemetry.evaluated(1, 1.5)
    step, evaluation = records(telemetry)
    assert step.pop("time") > 1e9
    assert step == {
        "step": 1,
        "loss": 2.0,
        "grad_norm": 0.5,
        "learning_rate": 1e-4,
        "tokens": 300,
        "supervised_tokens": 100,
        "seconds": 0.5,
        "tokens_per_second": 600.0,
        "attempt": 1,
    }
    assert evaluation.pop("time") > 1e9
    assert evaluation == {"step": 1, "eval_loss": 1.5, "attempt": 1}


def test_what_is_not_finite_is_null(tmp_path: Path) -> None:
    telemetry = start(tmp_path)
    telemetry.step(record(1, grad_norm=math.inf, seconds=0.0))
    telemetry.evaluated(1, math.nan)
    step, evaluation = records(telemetry)
    assert step["grad_norm"] is step["tokens_per_second"] is evaluation["eval_loss"] is None


def test_no_step_stands_there_twice(tmp_path: Path) -> None:
    first = start(tmp_path / "1")
    for number in range(1, 6):
        first.step(record(number))
    first.evaluated(3, 1.0)
    cut_short = first.snapshot() + b'{"step":'
    second = start(tmp_path / "2", attempt=2, step=3, history=cut_short)
    for number in range(4, 7):
        second.step(record(number))
    seen = [(r["step"], r["attempt"]) for r in records(second) if "loss" in r]
    assert seen == [(1, 1), (2, 1), (3, 1), (4, 2), (5, 2), (6, 2)]
    assert [r["step"] for r in records(second) if "eval_loss" in r] == [3]


def test_a_start_from_nothing_keeps_nothing_of_the_scratch_directory(tmp_path: Path) -> None:
    start(tmp_path).step(record(1))
    assert records(start(tmp_path)) == []


def test_a_disk_that_takes_nothing_stops_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "scratch").write_text("no directory")
    telemetry = start(tmp_path)
    telemetry.step(record(1))
    telemetry.evaluated(1, 1.0)
    assert telemetry.snapshot() == b""
    assert telemetry.files(FACTS) == {}
    telemetry.close(Reason.SUCCEEDED)
    assert caplog.text.count("training goes on") == 1


def test_history_and_report_belong_into_the_artifact(tmp_path: Path) -> None:
    telemetry = start(tmp_path)
    telemetry.step(record(1))
    files = telemetry.files(FACTS)
    assert sorted(files) == ["metrics.jsonl", "report.html"]
    assert files["metrics.jsonl"].read_bytes() == telemetry.snapshot()
    assert "<svg" in files["report.html"].read_text()


def test_event_files_are_there_in_full(tmp_path: Path) -> None:
    tracking = {"type": "TensorBoard", "project": "p"}
    config = run_config(tmp_path, tracking=tracking)
    telemetry = Telemetry(config, {})
    telemetry.go_on(run_id=None, history=b"", step=0)
    telemetry.step(record(1))
    [events] = [path for name, path in telemetry.files(FACTS).items() if "tensorboard/" in name]
    assert b"train/loss" in events.read_bytes()
    telemetry.close(Reason.SUCCEEDED)


def test_a_report_that_can_not_be_drawn_is_left_out(tmp_path: Path) -> None:
    telemetry = start(tmp_path)
    telemetry.step(record(1))
    nothing: Any = None
    assert sorted(telemetry.files(nothing)) == ["metrics.jsonl"]
