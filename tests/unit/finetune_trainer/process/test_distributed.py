"""Ranks have a device that they were meant for, wait long enough, and know who failed first."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import torch
import torch.distributed as dist

from finetune_contract.reasons import Reason
from finetune_trainer.process.distributed import Ranks, choose_device
from finetune_trainer.process.errors import Failure

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
    with pytest.raises(Failure, match="driver"):  # a second group would be an error of torch's
        alone.join(gpus=True)


def test_the_device_s_group_waits_longer_than_nccl_would(alone: Ranks) -> None:
    assert alone.device == CPU
    assert alone._store.timeout == timedelta(hours=1)
    waits = [
        group._get_backend(CPU).options._timeout for group in (dist.group.WORLD, alone._agreement)
    ]
    assert waits == [timedelta(minutes=30), timedelta(hours=12)]


def test_who_failed_first_stays_known(alone: Ranks) -> None:
    def fails(rank: int | None) -> Any:
        raise Failure(Reason.ROLLOUT_UNAVAILABLE, "the server is gone", rank=rank)

    for rank, told in ((1, 1), (None, alone.rank)):
        with pytest.raises(Failure, match="gone") as caught:
            alone.everywhere(lambda rank=rank: fails(rank))
        assert caught.value.rank == told
