"""Ranks that are killed are named, and pods that are told to stop save what they did."""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from finetune_contract.reasons import Reason
from finetune_contract.runconfig import RunConfig
from support.models.tiny_llama import sums, write_model, write_rows
from support.trainer.launchers import ENDLESS, Pod, pods
from support.trainer.runs import run_config

Endless = Callable[..., RunConfig]


@pytest.fixture
def endless(tmp_path: Path) -> Endless:
    """Return what makes the RunConfig of a job that trains until it is stopped."""
    write_model(tmp_path / "model")
    write_rows(tmp_path / "train.jsonl", sums(16))
    return partial(run_config, tmp_path, training=ENDLESS)


@pytest.mark.parametrize(
    ("number", "reason", "words"),
    [
        (signal.SIGKILL, Reason.TRAINER_ERROR, "killed"),
        pytest.param(  # as NCCL's watchdog ends it
            signal.SIGABRT, Reason.DISTRIBUTED_FAILURE, "aborted", marks=pytest.mark.slow
        ),
    ],
)
def test_a_killed_rank_is_named(
    endless: Endless, tmp_path: Path, number: int, reason: Reason, words: str
) -> None:
    config = endless(processesPerWorker=2)
    pod = Pod(config, tmp_path / "pod")
    pod.wait_until_training()
    pod.ranks()[1].send_signal(number)
    result = pod.result()
    assert (result.reason, result.rank) == (reason, 1)
    assert words in result.message


@pytest.mark.parametrize(
    "told",
    [
        "launcher",
        *(pytest.param(told, marks=pytest.mark.slow) for told in ("keyboard", "torchrun", "rank")),
    ],
)
def test_a_pod_that_is_told_to_stop_saves_what_it_did(
    endless: Endless, tmp_path: Path, told: str
) -> None:
    config = endless(processesPerWorker=2)
    pod = Pod(config, tmp_path / "pod")
    pod.wait_until_training()
    ranks = pod.ranks()
    match told:
        case "launcher":
            for _ in range(2):
                pod.process.terminate()
        case "keyboard":
            pod.process.send_signal(signal.SIGINT)
        case "torchrun":
            ranks[0].parent().terminate()
        case _:
            ranks[1].terminate()
    result = pod.result()
    assert result.reason is Reason.INTERRUPTED
    assert result.checkpoint is not None
    assert result.checkpoint.step == result.step
    assert not any(rank.is_running() for rank in ranks.values())


@pytest.mark.slow
def test_one_pod_that_is_told_to_stop_stops_all(endless: Endless, tmp_path: Path) -> None:
    config = endless(workers=2)
    with pods(config, config, directory=tmp_path) as (first, second):
        first.wait_until_training()
        second.process.terminate()
        results = [pod.result() for pod in (first, second)]
    assert {result.reason for result in results} == {Reason.INTERRUPTED}
    assert results[0].checkpoint is not None
    assert results[0].checkpoint == results[1].checkpoint
