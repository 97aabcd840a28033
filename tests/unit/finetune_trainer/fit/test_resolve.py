"""Auto is settled and told, from small files and headers alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from finetune_contract.layout import ZeroStage
from finetune_contract.recipe import ModelRecipe
from finetune_trainer.fit.fitting import Room
from finetune_trainer.fit.resolve import room, smallest
from finetune_trainer.process.machine import memory_bytes
from finetune_trainer.store.headers import read_headers
from finetune_trainer.store.sources import resolve_model
from support.grpo.draws import rollout_config
from support.models.tiny_models import write_tiny
from support.models.weightless import (
    CPU,
    GPU,
    MIB,
    Nodes,
    grpo_wish,
    settle,
    settle_config,
    write_untriable,
)
from support.trainer.runs import run_config


def test_what_reward_models_hold_is_part_of_the_plan(tmp_path: Path) -> None:
    model = tmp_path / "model"
    write_tiny("llama", model)
    config = run_config(tmp_path)
    without = settle_config(config, model)
    beside = settle_config(config, model, lambda wish: replace(wish, reward_models=123 * MIB))
    assert beside.memory.overhead - without.memory.overhead == 123 * MIB
    assert beside.memory.total - without.memory.total == 123 * MIB


def test_auto_is_settled_without_weights_and_told(tmp_path: Path) -> None:
    layout = run_config(tmp_path, processesPerWorker=2).layout
    resolved = settle(tmp_path, processesPerWorker=2)
    assert (resolved.micro_batch_size, resolved.accumulation_steps) == (4, 1)
    assert (resolved.zero_stage, resolved.gradient_checkpointing, resolved.packing) == (
        0,
        False,
        True,
    )
    assert resolved.memory.weights == 4 * 32_096
    assert resolved.memory.available == room(CPU, layout).device
    assert resolved.lora == ()


@pytest.mark.parametrize("host", [2, 4])
def test_the_node_with_the_least_memory_counts(tmp_path: Path, host: int) -> None:
    rooms = [Room(3000 * MIB, host * 1000 * MIB), Room(2000 * MIB, 3000 * MIB)]
    resolved = settle(tmp_path, nodes=Nodes(rooms))
    assert resolved.memory.available == 2000 * MIB
    pair = (Room(3, host), Room(2, 3))
    assert smallest(pair) == smallest(pair[::-1]) == Room(2, min(host, 3))


def test_what_the_user_set_is_kept(tmp_path: Path) -> None:
    resolved = settle(
        tmp_path,
        processesPerWorker=2,
        microBatchSize=2,
        zeroStage=2,
        gradientCheckpointing="Always",
        packing=False,
    )
    assert (resolved.micro_batch_size, resolved.zero_stage) == (2, ZeroStage.GRADIENTS)
    assert (resolved.accumulation_steps, resolved.gradient_checkpointing, resolved.packing) == (
        2,
        True,
        False,
    )


def test_an_architecture_that_is_not_known_is_padded(tmp_path: Path) -> None:
    assert not settle(tmp_path, "olmo2").packing


@pytest.mark.parametrize(
    ("name", "options", "why"),
    [
        ("olmo2", {}, "rows of model_type olmo2 can not be packed"),
        ("llama", {"packing": False}, "spec.training.packing is false"),
        ("llama", {"microBatchSize": 1}, "a micro-batch of 1 holds no group of 2"),
        ("llama", {"microBatchSize": 2}, None),
    ],
)
def test_why_prompts_are_not_shared_is_told(
    name: str,
    options: dict[str, Any],
    why: str | None,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    write_tiny(name, tmp_path / "model")
    lora = {"targets": ["Attention"]}
    config = rollout_config(tmp_path, lora=lora, **{"microBatchSize": 2, **options})
    settle_config(config, tmp_path / "model", grpo_wish(config))
    told = [message for message in caplog.messages if message.startswith("prompts are computed")]
    expected = f"prompts are computed more than once for their completions: {why}"
    assert told == ([] if why is None else [expected])


def test_logits_that_exist_whole_are_counted(tmp_path: Path) -> None:
    write_untriable(tmp_path / "whole/model")
    nodes, training = Nodes([Room(MIB**2, MIB**2)]), {"sequenceLength": 2048}
    whole, split = (
        settle(tmp_path / name, "olmo2", nodes, microBatchSize=8, training=training)
        for name in ("whole", "split")
    )
    assert whole.memory.logits > split.memory.logits


def test_the_host_s_memory_is_divided_among_its_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    layout: Any = SimpleNamespace(processes_per_worker=4)
    host = memory_bytes() // 4
    assert room(CPU, layout) == Room(host, host)
    sizes = [80, 24, 40]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(sizes))
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda i: SimpleNamespace(total_memory=sizes[i])
    )
    assert room(GPU, layout) == Room(24, host)


def test_headers_of_all_files_are_put_together(tmp_path: Path) -> None:
    write_tiny("llama", tmp_path, max_shard_size="40KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    source = resolve_model(ModelRecipe(uri=tmp_path.as_uri()), None)
    headers = read_headers(source, None)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert headers.keys() == index["weight_map"].keys()
    assert headers["model.embed_tokens.weight"].shape == (259, 32)
    assert headers["model.embed_tokens.weight"].dtype == "F32"
