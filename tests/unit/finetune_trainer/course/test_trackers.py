"""Each tracker by its own reader, or its own client."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from finetune_contract.reasons import Reason
from finetune_trainer.course.telemetry import Telemetry
from finetune_trainer.course.tracking import flatten
from support.services.trackers import WandbServer, serving, until
from support.trainer.tracked_runs import CANARY, Runs, losses, train


def test_tensorboard_reads_the_event_files(tmp_path: Path) -> None:
    runs = Runs(tmp_path, "TensorBoard")
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
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetune_trainer.course.trackers.wandb.FINISH_SECONDS", 60.0)
    server = WandbServer()
    with serving(server):
        runs = Runs(tmp_path, "WandB", server.url)
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
