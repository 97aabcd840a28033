"""A rank that is told to stop ends in time, whatever it and its peers are doing."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from finetune_contract.reasons import Reason, exit_code
from finetune_contract.runconfig import RunConfig
from support.trainer.fork_server import Ended, Fault, ForkServer
from support.trainer.launchers import ENDLESS
from support.trainer.runs import run_config

STEPS = 6
INTERRUPTED = exit_code(Reason.INTERRUPTED)
TERM = int(signal.SIGTERM)


def config(
    inputs: Path, output: Path, *, attempt: int = 1, steps: int = STEPS, **layout: Any
) -> RunConfig:
    return run_config(
        inputs,
        output=output.as_uri(),
        training={"maxSteps": steps},
        attempt=attempt,
        microBatchSize=2,
        zeroStage=2,
        checkpoint={"everySteps": 2, "everyMinutes": None},
        scratchDir=str(output / "scratch"),
        **{"processesPerWorker": 2, **layout},
    )


def checkpoint_step(end: Ended) -> int | None:
    assert end.result is not None
    assert end.result.reason is Reason.INTERRUPTED
    return end.result.checkpoint.step if end.result.checkpoint else None


def test_a_stop_while_a_checkpoint_is_written_waits_for_it(
    server: ForkServer, inputs: Path, tmp_path: Path
) -> None:
    fault = Fault(TERM, 4, (0,), at="checkpoint")
    ends = server.run(config(inputs, tmp_path, steps=10**6), tmp_path / "attempt-1", fault)
    assert {end.code for end in ends} == {INTERRUPTED}
    [step] = {checkpoint_step(end) for end in ends}
    assert step is not None
    assert step >= 4  # training went on until the flag was seen


def test_a_store_that_hangs_costs_only_the_last_steps(
    server: ForkServer, inputs: Path, tmp_path: Path
) -> None:
    """The grace period is too short for the checkpoint: the one before stands."""
    fault = Fault(0, 3, (0,), at="checkpoint")
    directory = tmp_path / "attempt-1"
    pids = server.start(config(inputs, tmp_path, graceSeconds=1.0), directory, fault)
    log = directory / "log-0"
    while "checkpoint of step 2" not in log.read_text():
        time.sleep(0.05)
    for pid in pids:
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGTERM)
    ends = server.wait(pids, directory)
    assert {end.code for end in ends} == {INTERRUPTED}
    assert checkpoint_step(ends[0]) == 2
    again = server.run(config(inputs, tmp_path, attempt=2), tmp_path / "attempt-2")
    assert [end.code for end in again] == [0, 0]
    assert "starts at step 2 of" in again[0].log


def test_a_publish_under_way_is_finished(server: ForkServer, inputs: Path, tmp_path: Path) -> None:
    fault = Fault(TERM, STEPS, (0,), at="publish")
    ends = server.run(config(inputs, tmp_path), tmp_path / "attempt-1", fault)
    assert [end.code for end in ends] == [0, 0]
    assert ends[1].result is not None
    assert ends[1].result.artifact is not None


@pytest.mark.parametrize("at", ["rank 0", "rank 1", "all"])
def test_a_stop_before_training_is_obeyed_at_once(
    server: ForkServer, inputs: Path, tmp_path: Path, at: str
) -> None:
    directory = tmp_path / "attempt-1"
    pids = server.start(config(inputs, tmp_path, graceSeconds=600.0), directory)
    while "phase Download" not in (directory / "log-0").read_text():
        time.sleep(0.01)
    told = pids if at == "all" else [pids[int(at[-1])]]
    for pid in told:
        os.kill(pid, signal.SIGTERM)
    ends = server.wait(pids, directory)
    lost = exit_code(Reason.DISTRIBUTED_FAILURE)
    assert [end.code for end in ends] == [INTERRUPTED if pid in told else lost for pid in pids], (
        ends[0].log
    )
    assert not (tmp_path / "runs").exists()


def test_a_rank_waiting_for_a_dead_peer_still_obeys(
    server: ForkServer, inputs: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "attempt-1"
    output = {"output": tmp_path.as_uri(), "scratchDir": str(tmp_path / "scratch")}
    endless = run_config(inputs, training=ENDLESS, workers=2, graceSeconds=4.0, **output)
    pids = server.start(endless, directory)
    while "step 1/" not in (directory / "log-0").read_text():
        time.sleep(0.05)
    os.kill(pids[1], signal.SIGSTOP)
    try:
        os.kill(pids[0], signal.SIGTERM)
        [end] = server.wait(pids[:1], directory)
    finally:
        os.kill(pids[1], signal.SIGKILL)
        server.wait(pids[1:], directory)
    assert end.code == INTERRUPTED
    assert end.result is not None
    assert end.result.reason is Reason.INTERRUPTED


@pytest.mark.slow
def test_a_checkpoint_cut_by_a_kill_does_not_count(
    server: ForkServer, inputs: Path, tmp_path: Path
) -> None:
    fault = Fault(int(signal.SIGKILL), 4, (0,), at="checkpoint")
    server.run(config(inputs, tmp_path), tmp_path / "attempt-1", fault)
    again = server.run(config(inputs, tmp_path, attempt=2), tmp_path / "attempt-2")
    assert [end.code for end in again] == [0, 0]
    assert "starts at step 2 of" in again[0].log


def test_a_store_that_refuses_checkpoints_stops_nothing(
    server: ForkServer, inputs: Path, tmp_path: Path
) -> None:
    made = config(inputs, tmp_path, processesPerWorker=1)
    refused = Fault(0, 0, (0,), at="refused checkpoint")
    [end] = server.run(made, tmp_path / "attempt-1", refused)
    assert end.code == 0
    assert end.log.count("failed, training goes on") == STEPS // 2
