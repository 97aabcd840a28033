"""Adapters sit on all that was asked for, and on nothing else."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from peft.tuners.lora import LoraLayer
from torch import nn

from finetune_contract.reasons import Reason
from finetune_contract.recipe import LoraRecipe, LoraTarget, Precision
from finetune_contract.resolved import RoleCoverage
from finetune_trainer.adapter.lora import adapt, adapted_weights
from finetune_trainer.adapter.roles import Kind, RoleMap, Weight, map_roles
from finetune_trainer.model.base import load_model
from finetune_trainer.process.errors import Failure
from support.models.adapters import adapted
from support.models.tiny_models import write_tiny
from support.models.tolerance import TINY_MODEL, assert_close

ATTENTION = r"self_attn\.(q|k|v|o)_proj"
MLA = r"self_attn\.(q_a_proj|q_b_proj|kv_a_proj_with_mqa|kv_b_proj|o_proj)"
GATED = r"(gate|up|down)_proj"
FUSED = r"mlp\.experts\.(gate_up|down)_proj"
# What must be adapted, as patterns over a layer's weights, per role; and how often in all.
EXPECTED = {
    "llama": {"Attention": (ATTENTION, 8), "MLP": (rf"mlp\.{GATED}", 6)},
    "qwen3-moe": {
        "Attention": (ATTENTION, 8),
        "Experts": (FUSED, 4),
        "Router": (r"mlp\.gate\.weight", 2),
    },
    "deepseek-v3": {
        "Attention": (MLA, 15),
        "MLP": (rf"mlp\.{GATED}", 3),
        "Experts": (FUSED, 4),
        "SharedExperts": (rf"mlp\.shared_experts\.{GATED}", 6),
        "Router": (r"mlp\.gate\.weight", 2),
    },
    "phi3": {
        "Attention": (r"self_attn\.(qkv|o)_proj", 4),
        "MLP": (r"mlp\.(gate_up|down)_proj", 4),
    },
}
EXPECTED["mixtral"] = EXPECTED["qwen3-moe"]
EXPECTED["deepseek-v2"] = EXPECTED["deepseek-v3"]
CASES = [(name, role) for name, roles in EXPECTED.items() for role in roles]


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {name: write_tiny(name, root / name) for name in EXPECTED}


def refused(action: Any, *arguments: Any, **named: Any) -> str:
    with pytest.raises(Failure) as caught:
        action(*arguments, **named)
    assert caught.value.reason is Reason.MODEL_UNSUPPORTED
    return caught.value.message


@pytest.mark.parametrize(("name", "role"), CASES)
def test_a_role_is_adapted_whole_and_alone(
    directories: dict[str, Path], name: str, role: str
) -> None:
    pattern, count = EXPECTED[name][role]
    made = adapted(directories[name], [role])
    assert made.coverage == (RoleCoverage(role=role, found=count, adapted=count),)
    reached = adapted_weights(made.model)
    assert len(reached) == count
    assert all(re.fullmatch(rf"model\.layers\.\d\.{pattern}", weight) for weight in reached)
    trainable = [n for n, p in made.model.named_parameters() if p.requires_grad]
    assert len(trainable) == 2 * count  # A and B
    assert all("lora_" in n for n in trainable)


def test_all_roles_together_are_their_sum(directories: dict[str, Path]) -> None:
    made = adapted(directories["deepseek-v3"], list(LoraTarget))
    assert {str(c.role): (c.found, c.adapted) for c in made.coverage} == {
        **{role: (count, count) for role, (_, count) in EXPECTED["deepseek-v3"].items()},
        "Embeddings": (1, 1),
        "Head": (1, 1),
    }
    kinds = adapted_weights(made.model)
    assert kinds["model.embed_tokens"] is Kind.EMBEDDING
    assert kinds["lm_head"] is Kind.LINEAR
    assert kinds["model.layers.2.mlp.experts.down_proj"] is Kind.PARAMETER
    assert all(p.numel() for p in made.model.parameters())


def test_every_rank_begins_with_the_same_adapter(directories: dict[str, Path]) -> None:
    def tensors(draws: int, seed: int) -> dict[str, torch.Tensor]:
        torch.rand(draws)  # whatever was drawn before
        model = adapted(directories["deepseek-v3"], ["Attention", "Experts"], seed=seed).model
        return {n: p for n, p in model.named_parameters() if p.requires_grad}

    first, same, other = tensors(1, 0), tensors(3, 0), tensors(2, 1)
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_a_new_adapter_changes_nothing(directories: dict[str, Path]) -> None:
    from support.models.adapters import logits

    targets = [r for r in LoraTarget if r in EXPECTED["deepseek-v3"]]
    model = adapted(directories["deepseek-v3"], [*targets, "Embeddings", "Head"]).model
    base = load_model(directories["deepseek-v3"], Precision.FP32)
    assert_close(logits(model), logits(base), terms=TINY_MODEL)


@pytest.mark.parametrize("precision", [Precision.BF16, Precision.FP16])
def test_adapters_stay_fp32_on_a_base_of_any_format(
    directories: dict[str, Path], precision: Precision
) -> None:
    targets = ["Attention", "Experts", "Router", "Embeddings", "Head"]
    model = adapted(directories["qwen3-moe"], targets, precision=precision).model
    half = torch.bfloat16 if precision is Precision.BF16 else torch.float16
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert {p.dtype for p in model.parameters() if not p.requires_grad} == {half}


@pytest.mark.parametrize(("rslora", "scaling"), [(False, 8 / 4), (True, 8 / math.sqrt(4))])
def test_the_update_is_scaled(directories: dict[str, Path], rslora: bool, scaling: float) -> None:
    model = adapted(directories["llama"], alpha=8, rslora=rslora).model
    layers = [m for m in model.modules() if isinstance(m, LoraLayer)]
    assert {layer.scaling["default"] for layer in layers} == {scaling}


def test_dropout_and_dora_are_where_they_were_asked_for(directories: dict[str, Path]) -> None:
    plain = adapted(directories["llama"]).model
    assert not any(isinstance(m, nn.Dropout) and m.p for m in plain.modules())
    assert not any("magnitude" in n for n, _ in plain.named_parameters())
    model = adapted(directories["llama"], dropout=0.5, dora=True).model
    rates = [m.p for n, m in model.named_modules() if "lora_dropout.default" in n]
    assert rates == [0.5] * 14
    magnitudes = [n for n, p in model.named_parameters() if "magnitude" in n and p.requires_grad]
    assert len(magnitudes) == 14


@pytest.mark.parametrize(
    ("role", "lora", "words"),
    [
        ("Router", {"dropout": 0.1}, "spec.lora.dropout does not work with spec.lora.targets"),
        ("Router", {"dora": True}, "spec.lora.dora does not work with spec.lora.targets Router"),
        # Plain PEFT would load these two as bare parameters.
        ("MLP", {"dora": True}, "spec.lora.dora does not work with spec.lora.targets MLP"),
        ("SharedExperts", {"dora": True}, "does not work with spec.lora.targets SharedExperts"),
    ],
)
def test_what_peft_can_not_do_on_bare_parameters_is_refused(
    directories: dict[str, Path], role: str, lora: dict[str, Any], words: str
) -> None:
    message = refused(adapted, directories["deepseek-v3"], [role], **lora)
    assert words in message
    assert "model.layers." in message


def test_layers_of_a_mixture_may_have_dropout(directories: dict[str, Path]) -> None:
    made = adapted(directories["deepseek-v3"], ["MLP", "SharedExperts"], dropout=0.25)
    rates = [m.p for n, m in made.model.named_modules() if "lora_dropout.default" in n]
    assert rates == [0.25] * 9


def test_less_than_asked_is_refused(directories: dict[str, Path]) -> None:
    model = load_model(directories["llama"], Precision.FP32)
    there = map_roles(model).weights[LoraTarget.MLP]
    gone = Weight("model.layers.7.mlp.up_proj", Kind.LINEAR, 32, 48)
    roles = RoleMap("llama", True, {LoraTarget.MLP: (*there, gone)})
    assert refused(adapt, model, LoraRecipe(targets=["MLP"]), roles, 0) == (
        "1 of 7 layers in the role MLP of spec.lora.targets got no adapter, such as "
        "model.layers.7.mlp.up_proj"
    )


def test_more_than_asked_is_refused(directories: dict[str, Path]) -> None:
    model = load_model(directories["llama"], Precision.FP32)
    model.draft = nn.ModuleDict({"lm_head": nn.Linear(32, 32)})  # PEFT matches name endings
    roles = map_roles(model)
    assert "draft.lm_head" in refused(adapt, model, LoraRecipe(targets=["Head"]), roles, 0)
