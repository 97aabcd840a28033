"""Which weights play which role, on every tiny architecture. The counts are written by hand."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from finetune_contract.reasons import Reason
from finetune_contract.recipe import LoraRecipe, LoraTarget, Precision
from finetune_trainer.adapter import roles
from finetune_trainer.adapter.lora import adapt
from finetune_trainer.adapter.roles import Kind, Weight, map_roles
from finetune_trainer.fit.resolve import adapter_shape
from finetune_trainer.model.base import empty_model, load_model
from finetune_trainer.process.errors import Failure
from support.models.tiny_models import MODELS, write_tiny

SIDES = {"Embeddings": 1, "Head": 1}
# Two layers with 4 matrices of attention and 3 of MLP; DeepSeek's three with 5 of MLA, the first
# dense, the others with 2 stacks of experts, 3 matrices of shared experts and a router.
DENSE = {"Attention": 8, "MLP": 6, **SIDES}
SPARSE = {"Attention": 8, "Experts": 4, "Router": 2, **SIDES}
DEEPSEEK = {"Attention": 15, "MLP": 3, "Experts": 4, "SharedExperts": 6, "Router": 2, **SIDES}
COUNTS = {
    "llama": DENSE,
    "qwen2": DENSE,
    "qwen3": DENSE,
    "mistral": DENSE,
    "smollm3": DENSE,
    "gemma": DENSE,
    "gemma2": DENSE,
    "gemma3": DENSE,
    "qwen3-moe": SPARSE,
    "mixtral": SPARSE,
    "deepseek-v2": DEEPSEEK,
    "deepseek-v3": DEEPSEEK,
    "phi": {"Attention": 8, "MLP": 4, **SIDES},  # fc1, fc2
    "phi3": {"Attention": 4, "MLP": 4, **SIDES},  # qkv_proj, o_proj; gate_up_proj, down_proj
    "gpt-neox": {"Attention": 4, "MLP": 4, **SIDES},
    "olmo2": DENSE,
    # A shared expert with a gate of its own, which routes too.
    "qwen2-moe": {"Attention": 8, "Experts": 4, "SharedExperts": 6, "Router": 4, **SIDES},
}
UNKNOWN = {"gpt-neox", "olmo2", "qwen2-moe"}


def counts(found: roles.RoleMap) -> dict[str, int]:
    return {str(role): len(weights) for role, weights in found.weights.items()}


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {name: write_tiny(name, root / name) for name in MODELS}


def test_every_tiny_model_has_an_expectation() -> None:
    assert COUNTS.keys() == MODELS.keys()


@pytest.mark.parametrize("name", COUNTS)
def test_roles_are_found_without_weights(directories: dict[str, Path], name: str) -> None:
    found = map_roles(empty_model(directories[name]))
    assert counts(found) == COUNTS[name]
    assert found.known == (name not in UNKNOWN)


@pytest.mark.parametrize("name", sorted(COUNTS.keys() - UNKNOWN))
def test_inspection_finds_what_the_table_says(directories: dict[str, Path], name: str) -> None:
    model = empty_model(directories[name])
    by_table = map_roles(model)
    model.config.model_type = "of nobody's table"
    by_inspection = map_roles(model)
    assert not by_inspection.known
    assert {r: set(w) for r, w in by_inspection.weights.items()} == {
        r: set(w) for r, w in by_table.weights.items()
    }


@pytest.mark.parametrize("name", ["llama", "deepseek-v3", "gemma", "gpt-neox", "phi3"])
@pytest.mark.parametrize("dora", [False, True])
def test_an_empty_model_tells_the_adapters_parameters(
    directories: dict[str, Path], name: str, dora: bool
) -> None:
    bare = {LoraTarget.EXPERTS, LoraTarget.ROUTER}
    if dora and name == "deepseek-v3":
        bare |= {LoraTarget.MLP, LoraTarget.SHARED_EXPERTS}
    targets = [r for r in LoraTarget if r in COUNTS[name] and not (dora and r in bare)]
    recipe = LoraRecipe(rank=3, targets=targets, dora=dora)
    told = adapter_shape(map_roles(empty_model(directories[name])), recipe).parameters
    model = load_model(directories[name], Precision.FP32)
    adapted = adapt(model, recipe, map_roles(model), 0).model
    assert told == sum(p.numel() for p in adapted.parameters() if p.requires_grad)


def test_weights_have_their_shapes(directories: dict[str, Path]) -> None:
    found = map_roles(empty_model(directories["deepseek-v3"])).weights
    layer = "model.layers.1"
    assert Weight(f"{layer}.self_attn.q_a_proj", Kind.LINEAR, 32, 12) in found[LoraTarget.ATTENTION]
    assert (
        Weight(f"{layer}.mlp.experts.gate_up_proj", Kind.PARAMETER, 32, 32, 8)
        in found[LoraTarget.EXPERTS]
    )
    assert (
        Weight(f"{layer}.mlp.experts.down_proj", Kind.PARAMETER, 16, 32, 8)
        in found[LoraTarget.EXPERTS]
    )
    assert Weight(f"{layer}.mlp.gate.weight", Kind.PARAMETER, 32, 8) in found[LoraTarget.ROUTER]
    assert found[LoraTarget.EMBEDDINGS] == (Weight("model.embed_tokens", Kind.EMBEDDING, 259, 32),)
    assert found[LoraTarget.HEAD] == (Weight("lm_head", Kind.LINEAR, 32, 259),)


def test_transposed_stacks_are_read_as_such(tmp_path: Path) -> None:
    config = {
        "model_type": "gpt_oss",
        "num_hidden_layers": 1,
        "hidden_size": 32,
        "intermediate_size": 24,
        "num_local_experts": 4,
        "vocab_size": 64,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    experts = map_roles(empty_model(tmp_path)).weights[LoraTarget.EXPERTS]
    name = "model.layers.0.mlp.experts"
    assert experts == (  # and no biases, which are matrices here
        Weight(f"{name}.gate_up_proj", Kind.PARAMETER, 32, 48, 4),
        Weight(f"{name}.down_proj", Kind.PARAMETER, 24, 32, 4),
    )


def test_a_weight_that_is_read_from_outside_its_layer_plays_no_role(tmp_path: Path) -> None:
    config = {
        "model_type": "qwen3_next",
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "layer_types": ["linear_attention", "full_attention"],
        "vocab_size": 64,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = map_roles(empty_model(tmp_path)).weights
    attention = {weight.name.split(".", 3)[-1] for weight in found[LoraTarget.ATTENTION]}
    linear = {f"linear_attn.{name}" for name in ("in_proj_qkvz", "in_proj_ba", "out_proj")}
    assert attention == linear | {f"self_attn.{name}_proj" for name in "qkvo"}  # and no conv1d
    assert {w.kind for w in found[LoraTarget.EXPERTS]} == {Kind.PARAMETER}


def test_transposed_layers_are_layers(tmp_path: Path) -> None:
    config = {"model_type": "gpt2", "n_embd": 32, "n_layer": 1, "n_head": 4, "vocab_size": 64}
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = map_roles(empty_model(tmp_path)).weights
    attention = Weight("transformer.h.0.attn.c_attn", Kind.LINEAR, 32, 96)
    assert found[LoraTarget.ATTENTION][0] == attention
    assert found[LoraTarget.MLP][0] == Weight("transformer.h.0.mlp.c_fc", Kind.LINEAR, 32, 128)


def test_what_is_folded_is_what_experts_and_routers_hold(directories: dict[str, Path]) -> None:
    found = map_roles(empty_model(directories["deepseek-v3"]))
    assert adapter_shape(found, LoraRecipe()).folded == 0
    stacks = 2 * 8 * (32 * 32 + 16 * 32)
    assert adapter_shape(found, LoraRecipe(targets=["Attention", "Experts"])).folded == stacks
    assert adapter_shape(found, LoraRecipe(targets=["Router"])).folded == 2 * 8 * 32


def test_queries_of_one_matrix_are_attention(tmp_path: Path) -> None:
    directory = write_tiny("deepseek-v2", tmp_path, q_lora_rank=None)
    found = map_roles(empty_model(directory)).weights[LoraTarget.ATTENTION]
    assert len(found) == 12
    assert sum(weight.name.endswith(".q_proj") for weight in found) == 3


def test_a_role_the_model_lacks_is_refused_with_those_it_has(
    directories: dict[str, Path],
) -> None:
    found = map_roles(empty_model(directories["mixtral"]))
    with pytest.raises(Failure) as caught:
        found.asked(LoraRecipe().targets)
    assert caught.value.reason is Reason.MODEL_UNSUPPORTED
    assert caught.value.message == (
        "the base model (mixtral) has no layer in the role MLP of spec.lora.targets; it has "
        "Attention, Experts, Router, Embeddings, Head"
    )
    assert list(found.asked(["Router"])) == [LoraTarget.ROUTER]


def test_inspection_is_told_in_the_log(
    directories: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        map_roles(empty_model(directories["llama"]))
        assert not caplog.messages
        map_roles(empty_model(directories["gpt-neox"]))
    (message,) = caplog.messages
    assert message.startswith("model_type gpt_neox is mapped by inspection: ")
    assert "Attention 4" in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"model_type": "no-such-type"}', "describes no causal language model"),
        ('{"architectures": ["LlamaForCausalLM"]}', "describes no causal language model"),
        ('{"model_type": "llama", "hidden_size": "many"}', "describes no causal language model"),
        ('{"model_type": "dots1", "n_routed_experts": null}', "describes no causal"),
        ("{", "is not JSON"),
    ],
)
def test_a_model_nobody_knows_is_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(Failure, match=words) as caught:
        empty_model(tmp_path)
    assert caught.value.reason is Reason.MODEL_UNSUPPORTED


def test_a_model_without_attention_has_no_such_role(tmp_path: Path) -> None:
    config = {"model_type": "mamba", "hidden_size": 16, "num_hidden_layers": 1, "vocab_size": 64}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(Failure, match="no layer in the role Attention"):
        map_roles(empty_model(tmp_path)).asked(LoraRecipe().targets)


class Block(nn.Module):
    """A decoder layer in the style of code outside transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.ModuleDict({"wqkv": nn.Linear(8, 24), "wo": nn.Linear(8, 8)})
        self.input_norm = nn.LayerNorm(8)
        self.router_norm = nn.Linear(8, 8)
        self.fc_in = nn.Linear(8, 16)
        experts = [
            nn.ModuleDict({"w1": nn.Linear(8, 16), "w2": nn.Linear(16, 8)}) for _ in range(2)
        ]
        self.block_sparse_moe = nn.ModuleDict(
            {"gate": nn.Linear(8, 2), "experts": nn.ModuleList(experts)}
        )
        named = ("in_proj", "qkv_proj", "down_proj")
        self.attention.register_parameter("bare", nn.Parameter(torch.zeros(8, 8)))
        self.block_sparse_moe["experts"].append(nn.Conv1d(8, 8, 1))
        self.mixer = nn.ModuleDict({name: nn.Linear(8, 8) for name in named})


class Foreign(nn.Module):
    """Just enough of a transformers model."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.config = type("Config", (), {"model_type": "foreign"})()
        self.eyes = nn.ModuleList(nn.Linear(8, 8) for _ in range(9))
        self.wte = nn.Embedding(32, 8)
        self.text = nn.Module()
        self.text.h = nn.ModuleList(Block() for _ in range(layers)) if layers else None

    def get_decoder(self) -> Any:
        return self.text

    def get_input_embeddings(self) -> Any:
        return self.wte

    def get_output_embeddings(self) -> Any:
        return None


def test_inspection_goes_by_place_and_name() -> None:
    with torch.device("meta"):
        found = map_roles(Foreign(2)).weights
    names = {
        str(role): {w.name.removeprefix("text.h.") for w in weights}
        for role, weights in found.items()
    }

    def both(*paths: str) -> set[str]:
        return {f"{layer}.{path}" for layer in (0, 1) for path in paths}

    assert names["Attention"] == both("attention.wqkv", "attention.wo", "mixer.qkv_proj")
    assert names["MLP"] == both("router_norm", "fc_in", "mixer.down_proj")
    assert names["Router"] == both("block_sparse_moe.gate")
    experts = [f"block_sparse_moe.experts.{e}.{n}" for e in (0, 1) for n in ("w1", "w2")]
    assert names["Experts"] == both(*experts)
    assert names["Embeddings"] == {"wte"}
    assert "Head" not in names
    assert not any("mixer.in_proj" in name for listed in names.values() for name in listed)


def test_a_model_without_layers_is_refused() -> None:
    with pytest.raises(Failure, match="no list of decoder layers"):
        map_roles(Foreign(0))
