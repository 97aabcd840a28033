"""A small random model of a class shows what each of its kinds of layers does."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from finetune_trainer.model.twin import small_twin


def empty(config: Any) -> Any:
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def test_every_kind_of_layer_is_in_it() -> None:
    kinds = ["sliding_attention"] * 7 + ["full_attention"]
    config = AutoConfig.for_model(
        "qwen2",
        num_hidden_layers=8,
        layer_types=kinds,
        sliding_window=4,
        use_sliding_window=True,
    )
    twin = small_twin(empty(config))
    assert twin is not None
    assert len(twin.model.layers) == 4
    assert set(twin.config.layer_types) == set(kinds)


def test_layers_of_attention_come_early() -> None:
    twin = small_twin(empty(AutoConfig.for_model("jamba")))
    assert twin is not None
    assert "full_attention" in twin.config.layer_types
