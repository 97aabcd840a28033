"""What is published loads exactly, in plain PEFT and, merged, in plain transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from finetune_contract.artifact import Provenance, TrainingSummary
from finetune_contract.recipe import LoraRecipe, LoraTarget, Precision
from finetune_contract.resolved import RoleCoverage
from finetune_trainer.adapter.export import export
from finetune_trainer.adapter.merge import save_merged
from finetune_trainer.adapter.roles import map_roles
from finetune_trainer.adapter.serving import vllm_serving
from finetune_trainer.model.base import load_model
from support.models.adapters import IDENTITY, adapted, disturb, logits, save
from support.models.tiny_llama import byte_tokenizer
from support.models.tiny_models import MODELS, write_tiny
from support.models.tolerance import TINY_MODEL, assert_close
from support.trainer.runs import run_config

slow = pytest.mark.slow
QUICK = {"llama", "deepseek-v3", "gemma"}
NAMES = [n if n in QUICK else pytest.param(n, marks=slow) for n in MODELS]


def plain(directory: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)


def base(name: str, directory: Path, **config: Any) -> Path:
    return write_tiny(name, directory, initializer_range=0.05, **config)


def all_roles(directory: Path) -> list[LoraTarget]:
    return list(map_roles(load_model(directory, Precision.FP32)).weights)


@pytest.mark.parametrize("name", NAMES)
def test_reloaded_and_merged_it_computes_the_same(name: str, tmp_path: Path) -> None:
    directory = base(name, tmp_path / "base")
    trained = disturb(adapted(directory, all_roles(directory)).model)
    expected = logits(trained)
    assert (expected - logits(plain(directory))).abs().max() > 0.01
    files = save(trained, tmp_path / "adapter")
    reloaded = PeftModel.from_pretrained(plain(directory), files)
    ours = {n: p for n, p in trained.named_parameters() if p.requires_grad}
    theirs = {n: p for n, p in reloaded.named_parameters() if "lora_" in n}
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[n], theirs[n]) for n in ours)
    assert_close(logits(reloaded), expected, terms=TINY_MODEL)
    save_merged(directory, files, tmp_path / "merged")
    assert_close(logits(plain(tmp_path / "merged")), expected, terms=TINY_MODEL)


@pytest.mark.parametrize(
    "lora", [{"rslora": True}, {"dora": True}, {"dropout": 0.5}], ids=lambda lora: next(iter(lora))
)
def test_variants_reload_and_merge(lora: dict[str, Any], tmp_path: Path) -> None:
    directory = base("llama", tmp_path / "base")
    trained = disturb(adapted(directory, **lora).model)
    files = save(trained, tmp_path / "adapter")
    expected = logits(trained)
    reloaded = PeftModel.from_pretrained(plain(directory), files)
    assert_close(logits(reloaded), expected, terms=TINY_MODEL)
    save_merged(directory, files, tmp_path / "merged")
    assert_close(logits(plain(tmp_path / "merged")), expected, terms=TINY_MODEL)


def test_dropout_on_shared_experts_reloads(tmp_path: Path) -> None:
    directory = base("deepseek-v3", tmp_path / "base")
    trained = disturb(adapted(directory, ["MLP", "SharedExperts"], dropout=0.5).model)
    files = save(trained, tmp_path / "adapter")
    reloaded = PeftModel.from_pretrained(plain(directory), files)
    assert_close(logits(reloaded), logits(trained), terms=TINY_MODEL)


def test_the_configuration_names_every_weight_in_full(tmp_path: Path) -> None:
    directory = write_tiny("deepseek-v3", tmp_path / "base")
    targets = ["Attention", "MLP", "Experts", "SharedExperts", "Router", "Head"]
    files = save(adapted(directory, targets).model, tmp_path / "adapter")
    config = json.loads((files / "adapter_config.json").read_text())
    mla = ("kv_a_proj_with_mqa", "kv_b_proj", "o_proj", "q_a_proj", "q_b_proj")
    layers = [f"model.layers.{i}.self_attn.{name}" for i in range(3) for name in mla]
    assert config["target_modules"] == ["lm_head", *layers]
    # PEFT would take dense layers and shared experts for experts if they were named as modules.
    below = [f"layers.0.mlp.{n}_proj.weight" for n in ("down", "gate", "up")]
    for i in (1, 2):
        below += [f"layers.{i}.mlp.experts.{n}_proj" for n in ("down", "gate_up")]
        below.append(f"layers.{i}.mlp.gate.weight")
        below += [f"layers.{i}.mlp.shared_experts.{n}_proj.weight" for n in ("down", "gate", "up")]
    assert config["target_parameters"] == [f"model.{name}" for name in below]
    assert config["inference_mode"] is True


def test_the_models_own_configuration_is_left_alone(tmp_path: Path) -> None:
    directory = write_tiny("llama", tmp_path / "base")
    model = adapted(directory).model
    save(model, tmp_path / "adapter")
    assert model.peft_config["default"].inference_mode is False
    assert model.peft_config["default"].base_model_name_or_path == str(directory)


@pytest.mark.parametrize("targets", [["Embeddings"], ["Head"], ["Embeddings", "Head"]])
def test_tied_embeddings_part_when_merged(targets: list[str], tmp_path: Path) -> None:
    directory = base("llama", tmp_path / "base", tie_word_embeddings=True)
    trained = disturb(adapted(directory, targets).model)
    save_merged(directory, save(trained, tmp_path / "adapter"), tmp_path / "merged")
    merged = plain(tmp_path / "merged")
    assert merged.config.tie_word_embeddings is False
    assert_close(logits(merged), logits(trained), terms=TINY_MODEL)
    sides = merged.get_input_embeddings().weight, merged.get_output_embeddings().weight
    assert not torch.equal(*sides)


def test_tied_embeddings_stay_tied_where_no_role_touches_them(tmp_path: Path) -> None:
    directory = base("llama", tmp_path / "base", tie_word_embeddings=True)
    files = save(adapted(directory).model, tmp_path / "adapter")
    save_merged(directory, files, tmp_path / "merged")
    merged = plain(tmp_path / "merged")
    assert merged.config.tie_word_embeddings is True
    assert merged.get_input_embeddings().weight is merged.get_output_embeddings().weight


@pytest.mark.parametrize("name", ["llama", "deepseek-v3", "mixtral"])
def test_the_merged_model_has_the_bases_tensors_and_formats(name: str, tmp_path: Path) -> None:
    directory = base(name, tmp_path / "base", dtype="bfloat16")
    model = load_model(directory, Precision.BF16)
    model.save_pretrained(directory)
    files = save(disturb(adapted(directory, ["Attention"]).model), tmp_path / "adapter")
    save_merged(directory, files, tmp_path / "merged")
    before = load_file(directory / "model.safetensors")
    after = load_file(tmp_path / "merged" / "model.safetensors")
    assert {n: (t.dtype, t.shape) for n, t in before.items()} == {
        n: (t.dtype, t.shape) for n, t in after.items()
    }
    changed = {n for n in before if not torch.equal(before[n], after[n])}
    assert changed
    assert all("self_attn" in n for n in changed)


def test_a_big_merged_model_is_sharded(tmp_path: Path) -> None:
    directory = base("llama", tmp_path / "base")
    files = save(disturb(adapted(directory).model), tmp_path / "adapter")
    save_merged(directory, files, tmp_path / "merged", max_shard_size="40KB")
    assert len(list((tmp_path / "merged").glob("model-*.safetensors"))) > 1
    assert (tmp_path / "merged" / "model.safetensors.index.json").exists()
    plain(tmp_path / "merged")


def exported(tmp_path: Path, targets: list[str], export_as: list[str]) -> Path:
    directory = write_tiny(
        "llama", tmp_path / "base", eos_token_id=byte_tokenizer().convert_tokens_to_ids("a")
    )
    document = run_config(tmp_path, lora={"targets": targets}).recipe.model_dump(by_alias=True)
    recipe = type(run_config(tmp_path).recipe).model_validate({**document, "export": export_as})
    model = disturb(adapted(directory, targets).model)
    provenance = Provenance(recipe_digest=recipe.digest(), model=IDENTITY, datasets=())
    summary = TrainingSummary(steps=2, supervised_tokens=9, final_loss=0.5, published_step=2)
    coverage = [RoleCoverage(role=LoraTarget(t), found=8, adapted=8) for t in targets]
    out = tmp_path / "out"
    out.mkdir()
    serving = export(model, recipe, provenance, summary, coverage, (), directory, directory, out)
    assert serving.vllm == (targets == ["Attention"])
    return out


def test_an_adapter_alone_is_published(tmp_path: Path) -> None:
    out = exported(tmp_path, ["Attention"], ["Adapter"])
    assert not (out / "merged").exists()
    card = (out / "README.md").read_text()
    assert "| Attention | 8 of 8 |" in card
    assert "| Served by vLLM | yes |" in card
    assert "| Began with | a new adapter |" in card
    AutoTokenizer.from_pretrained(out)


def test_the_merged_model_comes_beside_the_adapter(tmp_path: Path) -> None:
    out = exported(tmp_path, ["Head"], ["Adapter", "Merged"])
    with safe_open(out / "merged" / "model.safetensors", "pt") as file:
        assert "lm_head.weight" in file.keys()  # noqa: SIM118 - not a dict
    tokenizer = AutoTokenizer.from_pretrained(out / "merged")
    assert tokenizer.chat_template
    for directory in (out, out / "merged"):  # the base's own end, and the chat template's
        config = GenerationConfig.from_pretrained(directory)
        assert tokenizer.convert_ids_to_tokens(config.eos_token_id) == ["a", "<|im_end|>"]
    assert (out / "adapter_model.safetensors").exists()
    assert "| Served by vLLM | no: " in (out / "README.md").read_text()


@pytest.mark.parametrize(
    ("model_type", "lora", "words"),
    [
        ("llama", {}, None),
        ("qwen3_moe", {"targets": ["Attention"], "rslora": True}, None),
        ("deepseek_v3", {"targets": ["MLP", "SharedExperts"]}, None),
        ("llama", {"rank": 512}, None),
        ("llama", {"rank": 513}, "its largest rank is 512"),
        ("llama", {"dora": True}, "it has no DoRA"),
        ("llama", {"targets": ["Embeddings"]}, "Embeddings"),
        ("llama", {"targets": ["Head"]}, "Head"),
        ("qwen3_moe", {"targets": ["Experts"]}, "gate_up_proj of Experts"),
        ("qwen3_moe", {"targets": ["Router"]}, "Router"),
        ("deepseek_v3", {"targets": ["Attention"]}, "kv_b_proj"),
        ("gpt_neox", {}, "its LoRA on model_type gpt_neox is not known"),
    ],
)
def test_who_can_serve_it(model_type: str, lora: dict[str, Any], words: str | None) -> None:
    names = ["model.layers.0.self_attn.o_proj"]
    if model_type == "deepseek_v3" and "Attention" in lora["targets"]:
        names.append("model.layers.0.self_attn.kv_b_proj")
    serving = vllm_serving(model_type, LoraRecipe(**lora), names)
    assert serving.vllm == (words is None)
    if words is None:
        assert serving.why_not is None
    else:
        assert serving.why_not is not None
        assert words in serving.why_not
        assert serving.why_not.endswith("output.export Merged can be served instead")
        assert serving.why_not.count(";") == 1  # one reason, and what to do


def test_all_reasons_are_told() -> None:
    recipe = LoraRecipe(targets=["Router", "Head"], rank=1024, dora=True)
    why = vllm_serving("gpt_neox", recipe, []).why_not
    assert why is not None
    for words in ("gpt_neox", "Router", "Head", "DoRA", "512"):
        assert words in why
