"""A run in which one rank hangs ends with the stacks of all, and goes on from its checkpoint."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from finetune_contract.reasons import Reason
from finetune_contract.runconfig import RunConfig
from finetune_trainer.store.artifacts import open_artifact
from support.trainer.launchers import ENDLESS, Pod, pods
from support.trainer.runs import run_config

HANGS = """
import os, sys, time
from importlib.abc import MetaPathFinder

class Finder(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "finetune_trainer.train":
            sys.meta_path.remove(self)
            import finetune_trainer.loop as loop
            seeds = loop.seed_step
            def hang_in_this_hook(seed, step, rank):
                if (step, rank) == (4, 1):
                    time.sleep(3600)
                seeds(seed, step, rank)
            loop.seed_step = hang_in_this_hook

sys.meta_path.insert(0, Finder())
"""


def stacks(directory: Path, node: int = 0) -> str:
    return (directory / f"out/runs/uid-1/a1/stacks/node-{node}.txt").read_text()


def test_a_rank_that_is_stopped_is_named_with_the_stacks_of_all(
    model: Path, rows: Path, tmp_path: Path
) -> None:
    config = run_config(
        tmp_path,
        model=model,
        data=rows,
        training=ENDLESS,
        processesPerWorker=2,
        stallTimeoutSeconds=20.0,
    )
    pod = Pod(config, tmp_path / "pod")
    pod.wait_until_training()
    ranks = pod.ranks()
    ranks[1].send_signal(signal.SIGSTOP)
    result = pod.result()
    assert result.reason is Reason.STALLED
    assert "in Train at step " in result.message
    told = stacks(tmp_path)
    assert "rank 1, T (stopped)" in told
    assert told.count("loop.py") >= 2
    assert told in pod.log
    assert not any(rank.is_running() for rank in ranks.values())


def adapter(directory: Path) -> bytes:
    opened = open_artifact((directory / "out").as_uri(), None, directory / "opened")
    return (opened / "adapter_model.safetensors").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("nodes", [1, 2])
def test_the_attempt_after_a_stall_makes_the_same_adapter(
    nodes: int, model: Path, rows: Path, tmp_path: Path
) -> None:
    def config(directory: Path, **layout: object) -> RunConfig:
        directory.mkdir(exist_ok=True)
        size = {"workers": 2} if nodes == 2 else {"processesPerWorker": 2}
        return run_config(
            directory,
            model=model,
            data=rows,
            training={"maxSteps": 8},
            checkpoint={"everySteps": 2},
            stallTimeoutSeconds=20.0,
            **size,
            **layout,
        )

    def ended(config: RunConfig, directory: Path, **environment: str) -> list[Reason]:
        if nodes == 1:
            return [Pod(config, directory, **environment).result().reason]
        with pods(config, config, directory=directory, last=environment) as started:
            return [pod.result().reason for pod in started]

    (tmp_path / "sitecustomize.py").write_text(HANGS)
    first, whole = config(tmp_path / "stalls"), config(tmp_path / "whole")
    stalled = ended(first, tmp_path / "first", PYTHONPATH=str(tmp_path))
    assert stalled == [Reason.STALLED] * nodes
    assert "hang_in_this_hook" in stacks(tmp_path / "stalls", nodes - 1)
    assert "torch/distributed" in stacks(tmp_path / "stalls")
    again = config(tmp_path / "stalls", attempt=2)
    assert ended(again, tmp_path / "again") == [Reason.SUCCEEDED] * nodes
    log = (tmp_path / "again" / ("log" if nodes == 1 else "node-0/log")).read_text()
    assert "starts at step 4 of 8" in log
    assert ended(whole, tmp_path / "run") == [Reason.SUCCEEDED] * nodes
    assert adapter(tmp_path / "stalls") == adapter(tmp_path / "whole")
