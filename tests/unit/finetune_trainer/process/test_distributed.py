"""Ranks go on together, on the device they were meant for, and end without a teardown."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from copy import copy
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist

from finetune_contract.progress import Phase
from finetune_contract.reasons import Reason
from finetune_contract.result import Outcome, PublishedArtifact
from finetune_trainer import rank as rank_module
from finetune_trainer import train
from finetune_trainer.methods.sft.learning import SupervisedObjective
from finetune_trainer.process import distributed
from finetune_trainer.process.distributed import Ranks, choose_device
from finetune_trainer.process.ending import ResultFile
from finetune_trainer.process.errors import Failure
from finetune_trainer.process.stopping import Stop
from finetune_trainer.run import Run
from support.trainer.parts import resolved_run
from support.trainer.runs import run_config

CPU = torch.device("cpu")


def machine(
    monkeypatch: pytest.MonkeyPatch, *, gpus: int, usable: bool, cuda: str | None = "13.0"
) -> None:
    """Pretend that torch sees this."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: usable)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.version, "cuda", cuda)


def test_each_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, gpus=2, usable=True)
    for asked in (True, False):
        assert choose_device(gpus=asked, local_rank=1) == torch.device("cuda", 1)
        with pytest.raises(
            Failure, match="no GPU for process 2 of this node, which has 2"
        ) as caught:
            choose_device(gpus=asked, local_rank=2)
        assert caught.value.reason is Reason.DEVICE_UNSUPPORTED


@pytest.mark.parametrize(
    ("cuda", "remedy"),
    [
        ("13.0", "none that works with CUDA 13.0; bring the node's NVIDIA driver"),
        (None, "with CUDA"),
    ],
)
def test_a_pod_that_asked_for_gpus_does_not_train_on_its_cpu(
    monkeypatch: pytest.MonkeyPatch, cuda: str | None, remedy: str
) -> None:
    machine(monkeypatch, gpus=1, usable=False, cuda=cuda)
    assert choose_device(gpus=False, local_rank=0) == CPU
    with pytest.raises(Failure, match=remedy) as caught:
        choose_device(gpus=True, local_rank=0)
    assert caught.value.reason is Reason.DEVICE_UNSUPPORTED
    assert "spec.workers.image" in caught.value.message


def test_the_device_is_refused_before_a_group_forms(
    monkeypatch: pytest.MonkeyPatch, alone: Ranks
) -> None:
    machine(monkeypatch, gpus=1, usable=False)
    monkeypatch.setattr(dist, "init_process_group", lambda *_, **__: pytest.fail("was formed"))
    with pytest.raises(Failure, match="driver"):
        alone.join(gpus=True)


def test_the_device_s_group_waits_longer_than_nccl_would(
    monkeypatch: pytest.MonkeyPatch, alone: Ranks
) -> None:
    made: dict[str, Any] = {}
    monkeypatch.setattr(dist, "init_process_group", lambda *_, **options: made.update(options))
    monkeypatch.setattr(dist, "new_group", lambda **_: alone._agreement)
    alone.join()
    assert made["timeout"] == timedelta(minutes=30)
    assert alone.device == CPU
    assert timedelta(hours=1) == distributed.RENDEZVOUS_TIMEOUT


def test_what_is_done_together_ends_together(monkeypatch: pytest.MonkeyPatch, alone: Ranks) -> None:
    assert alone.together(lambda: "mine") == "mine"

    def another_fails(work: Callable[[], Any]) -> None:
        work()
        raise Failure(Reason.DISK_FULL, "rank 1", rank=1)

    monkeypatch.setattr(alone, "everywhere", another_fails)
    with pytest.raises(Failure, match="rank 1"):
        alone.together(lambda: "mine")


def test_who_failed_first_stays_known(alone: Ranks) -> None:
    def fails(rank: int | None) -> Any:
        raise Failure(Reason.ROLLOUT_UNAVAILABLE, "the server is gone", rank=rank)

    for rank, told in ((1, 1), (None, alone.rank)):
        with pytest.raises(Failure, match="gone") as caught:
            alone.everywhere(lambda rank=rank: fails(rank))
        assert caught.value.rank == told


def test_ranks_wait_for_each_other_s_downloads_and_disks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    done: list[str] = []

    def step(name: str, made: Any = None) -> Callable[..., Any]:
        return lambda *_, **__: (done.append(name), made)[1]

    def together(work: Callable[[], Any]) -> Any:
        made = work()
        done.append("agreed")
        return made

    adapted = SimpleNamespace(coverage=(), model=SimpleNamespace())
    for name, made in {
        "fetch": tmp_path,
        "fetch_initial": None,
        "prepare_deepspeed": None,
        "load_adapted": adapted,
        "Engine": None,
    }.items():
        monkeypatch.setattr(train, name, step(name, made))
    monkeypatch.setattr(train, "sharded_loading", lambda _: nullcontext())
    ranks: Any = SimpleNamespace(together=together, wait=step("waited"), device=CPU)
    source: Any = SimpleNamespace(initial=None)
    reporter: Any = SimpleNamespace(begin=lambda phase: None, adapted=lambda coverage: None)
    run = resolved_run(run_config(tmp_path), ranks, reporter)
    train.load(run, source, SupervisedObjective())
    assert done == [
        *("fetch", "agreed", "fetch_initial", "agreed"),
        *("prepare_deepspeed", "load_adapted", "waited", "Engine"),
    ]


def test_a_committed_run_succeeds_without_a_teardown_that_may_crash(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, alone: Ranks
) -> None:
    asked: list[bool] = []
    waited: list[bool] = []
    monkeypatch.setattr(Ranks, "meet", lambda: alone)
    monkeypatch.setattr(alone, "watch_failures", lambda end: None)
    monkeypatch.setattr(alone, "join", lambda *, gpus: asked.append(gpus))
    monkeypatch.setattr(alone, "wait", lambda: waited.append(True))
    monkeypatch.setattr(dist, "destroy_process_group", lambda: pytest.fail("was torn down"))
    artifact = PublishedArtifact(uri="file:///a", digest="sha256:0", bytes=1)
    monkeypatch.setattr(rank_module, "train_and_publish", lambda *_: artifact)
    stop = Stop(1.0, leave=lambda: None)
    config = run_config(tmp_path, gpus=True)
    result = rank_module.run_rank(config, ResultFile(tmp_path, 0), stop, None)
    assert (result.outcome, result.artifact) == (Outcome.SUCCEEDED, artifact)
    assert (asked, waited) == ([True], [True])


@pytest.mark.parametrize("phase", [Phase.ROLLOUT, Phase.SCORE, Phase.PUBLISH])
@pytest.mark.parametrize("error", [Failure(Reason.REWARD_FAILED, "broken"), MemoryError()])
def test_a_failure_tells_the_step_whatever_the_phase(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, alone: Ranks, phase: Phase, error: Exception
) -> None:
    def fails(run: Run) -> Any:
        reporter = run.reporter
        reporter.begin(Phase.TRAIN, 9)
        reporter.resumed(4)
        reporter.begin(phase, 16)
        reporter.advance(12)
        raise copy(error)

    monkeypatch.setattr(Ranks, "meet", lambda: alone)
    monkeypatch.setattr(alone, "watch_failures", lambda end: None)
    monkeypatch.setattr(alone, "join", lambda *, gpus: None)
    monkeypatch.setattr(rank_module, "train_and_publish", fails)
    stop = Stop(1.0, leave=lambda: None)
    result = rank_module.run_rank(run_config(tmp_path), ResultFile(tmp_path, 0), stop, None)
    assert (result.outcome, result.rank) == (Outcome.FAILED, 0)
    assert result.step == (4 if phase is Phase.PUBLISH else 5)
