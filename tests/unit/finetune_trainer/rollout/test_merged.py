"""Merged, a model computes what it does with its adapter, and afterwards it is what it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from finetune_contract.recipe import Precision
from finetune_trainer.rollout.merged import mergeable, mergeable_bytes, merged
from support.models.adapters import adapted, disturb, logits
from support.models.tiny_models import write_tiny
from support.models.tolerance import TINY_MODEL, assert_close

ALL = ("Attention", "MLP", "Embeddings", "Head")
CASES: dict[str, tuple[str, tuple[str, ...], dict[str, Any], dict[str, Any]]] = {
    "llama": ("llama", ALL, {}, {}),
    "DoRA": ("llama", ALL, {"dora": True}, {}),
    "tied": ("llama", ALL, {}, {"tie_word_embeddings": True}),
    "scaled embeddings": (
        "gemma3",
        ("Attention", "Embeddings"),
        {},
        {"tie_word_embeddings": False},
    ),
    "fused experts": ("qwen3-moe", ("Attention", "Experts", "Router"), {}, {}),
    "latent attention": ("deepseek-v3", ("Attention", "MLP", "Experts", "SharedExperts"), {}, {}),
    "fused projections": ("phi3", ("Attention", "MLP"), {"rslora": True}, {}),
}


@pytest.mark.parametrize("case", CASES)
def test_merged_is_the_adapter(case: str, tmp_path: Path) -> None:
    name, targets, lora, config = CASES[case]
    model = disturb(adapted(write_tiny(name, tmp_path, **config), targets, **lora).model, 0.05)
    tensors = {n: (p.data_ptr(), p.detach().clone()) for n, p in model.named_parameters()}
    with_adapter = logits(model)
    with model.disable_adapter():
        assert (logits(model) - with_adapter).abs().max() > 0.1
    with merged(model):
        assert_close(logits(model), with_adapter, terms=TINY_MODEL)
        ways = {id(layer): bool(layer.merged) for layer in mergeable(model)}
        assert all(ways.values())
        assert not any(layer._caches for layer in mergeable(model)), "it holds what is not used"
    assert logits(model).equal(with_adapter)
    for n, p in model.named_parameters():
        assert (p.data_ptr(), True) == (tensors[n][0], p.equal(tensors[n][1])), n


def test_weights_that_two_layers_share_are_left_alone(tmp_path: Path) -> None:
    tied = adapted(write_tiny("llama", tmp_path, tie_word_embeddings=True), ALL).model
    names = {n for n, module in tied.named_modules() if module in mergeable(tied)}
    assert len(names) == 14
    assert not any("embed_tokens" in n or "lm_head" in n for n in names)


def test_the_bytes_are_those_of_the_merged_weights(tmp_path: Path) -> None:
    model = adapted(write_tiny("qwen3-moe", tmp_path), ("Experts",)).model
    weights = [p for n, p in model.named_parameters() if n.endswith(("gate_up_proj", "down_proj"))]
    assert mergeable_bytes(model) == sum(p.nbytes for p in weights) > 0


def test_a_failure_in_between_puts_the_weights_back(tmp_path: Path) -> None:
    model = disturb(adapted(write_tiny("llama", tmp_path)).model)
    before = logits(model)
    with pytest.raises(ZeroDivisionError), merged(model):
        _ = 1 / 0
    assert logits(model).equal(before)


def test_half_precision_is_rounded_once(tmp_path: Path) -> None:
    model = disturb(
        adapted(write_tiny("llama", tmp_path), ("MLP",), precision=Precision.BF16).model, 0.05
    )
    layer = mergeable(model)[0]
    exact = layer.get_base_layer().weight.float() + layer.get_delta_weight("default")
    with merged(model):
        weight = layer.get_base_layer().weight
        assert weight.dtype is torch.bfloat16
        assert weight.equal(exact.to(torch.bfloat16))
    assert layer.get_base_layer().weight.dtype is torch.bfloat16
