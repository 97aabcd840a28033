"""A run whose output another has claimed ends at its next checkpoint, on all ranks, and says so."""

from __future__ import annotations

import time
from pathlib import Path

from finetune_contract.artifact import MANIFEST
from finetune_contract.reasons import Reason, exit_code
from finetune_contract.runconfig import RunConfig
from finetune_trainer.store.publish import Output
from support.trainer.fork_server import ForkServer
from support.trainer.runs import run_config

STEPS = 3000  # more than are done until the other claim is seen


def job(inputs: Path, directory: Path, uid: str) -> RunConfig:
    return run_config(
        inputs,
        output=(directory / "out").as_uri(),
        training={"maxSteps": STEPS, "sequenceLength": 64},
        job={"name": "tiny", "namespace": "tests", "uid": uid},
        processesPerWorker=2,
        microBatchSize=4,
        checkpoint={"everySteps": 2, "everyMinutes": None},
        scratchDir=str(directory / "scratch"),
    )


def await_checkpoint(output: Path) -> None:
    until = time.monotonic() + 60
    while not list(output.rglob(f"checkpoints/*/{MANIFEST}")):
        assert time.monotonic() < until, "no checkpoint"
        time.sleep(0.02)


def test_a_run_ends_at_the_checkpoint_that_sees_anothers_claim(
    server: ForkServer, inputs: Path, tmp_path: Path
) -> None:
    pids = server.start(job(inputs, tmp_path, "uid-1"), tmp_path / "run")
    await_checkpoint(tmp_path / "out")
    Output.claim(job(inputs, tmp_path, "uid-2").layout)
    ends = server.wait(pids, tmp_path / "run")
    assert [end.code for end in ends] == 2 * [exit_code(Reason.SUPERSEDED)], ends[0].log
    for end in ends:
        assert end.result is not None
        assert end.result.reason is Reason.SUPERSEDED
        assert "attempt 1 of the job with uid uid-2" in end.result.message
        assert (end.result.step or 0) < STEPS
