"""Where the base model's weights are loaded to."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from finetune_contract.layout import ZeroStage
from finetune_trainer import load as load_module
from finetune_trainer import train as train_module
from finetune_trainer.load import load_adapted, placement_on
from finetune_trainer.model import load_model
from finetune_trainer.train import load
from support.tiny_models import write_tiny
from support.trainer_runs import run_config

CPU, GPU = torch.device("cpu"), torch.device("cuda", 1)


@pytest.mark.parametrize("stage", list(ZeroStage))
def test_weights_go_straight_to_the_process_s_gpu_unless_they_are_sharded(stage: ZeroStage) -> None:
    sharded = stage is ZeroStage.PARAMETERS
    assert placement_on(GPU, stage) == ({} if sharded else {"device_map": {"": GPU}})
    assert placement_on(CPU, stage) == {}


def test_the_model_is_loaded_where_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []

    def noted(*arguments: Any, **options: Any) -> Any:
        told.append(options)
        return load_model(*arguments, **options)

    monkeypatch.setattr(load_module, "load_model", noted)
    directory = write_tiny("llama", tmp_path / "model")
    load_adapted(run_config(tmp_path).recipe, directory, None, {"device_map": {"": CPU}})
    assert told == [{"device_map": {"": CPU}}]


def test_a_run_on_a_gpu_places_its_model_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = run_config(tmp_path, processesPerWorker=2, zeroStage=1)
    told: list[Any] = []

    def loaded(*arguments: Any) -> Any:
        told.append(arguments[-1])
        return SimpleNamespace(model=None, coverage=())

    for name in ("fetch", "fetch_initial", "prepare_deepspeed", "Engine"):
        monkeypatch.setattr(train_module, name, lambda *_a, **_n: None)
    monkeypatch.setattr(train_module, "load_adapted", loaded)
    ranks: Any = SimpleNamespace(device=GPU, together=lambda do: do(), wait=lambda: None)
    reporter: Any = SimpleNamespace(begin=lambda *_: None, adapted=lambda *_: None)
    load(config, SimpleNamespace(initial=None), ranks, reporter)  # type: ignore[arg-type]
    assert told == [{"device_map": {"": GPU}}]
