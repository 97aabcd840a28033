"""NF4: what becomes smaller, what is refused, and that evaluating leaves weights alone."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit

from finetune_contract.reasons import Reason
from finetune_contract.recipe import Recipe
from finetune_trainer.adapter.load import load_adapted
from finetune_trainer.model.base import load_model
from finetune_trainer.model.quantization import check_quantization, loading_options
from finetune_trainer.process.errors import Failure
from support.models.adapters import disturb, logits, save
from support.models.tiny_models import write_tiny
from support.models.tolerance import TINY_MODEL, assert_close
from support.trainer.runs import run_config

CPU = torch.device("cpu")


def recipe(tmp_path: Path, precision: str = "FP32", **lora: Any) -> Recipe:
    asked = {"quantization": "NF4", **lora}
    return run_config(tmp_path, training={"precision": precision}, lora=asked).recipe


@pytest.mark.parametrize("name", ["llama", "deepseek-v3"])
@pytest.mark.parametrize("precision", ["FP32", "BF16"])
def test_linear_layers_are_stored_in_four_bits(tmp_path: Path, name: str, precision: str) -> None:
    directory = write_tiny(name, tmp_path / "model", hidden_size=64)
    made = load_adapted(recipe(tmp_path, precision), directory)
    dtype = torch.float32 if precision == "FP32" else torch.bfloat16
    small = {n: m for n, m in made.model.named_modules() if isinstance(m, Linear4bit)}
    assert len(small) == {"llama": 14, "deepseek-v3": 15 + 3 + 6}[name]
    assert all(m.weight.quant_state.quant_type == "nf4" for m in small.values())
    assert {m.compute_dtype for m in small.values()} == {dtype}
    assert all(m.weight.quant_state.nested for m in small.values())  # the scales are quantised too
    assert {m.weight.dtype for m in small.values()} == {dtype}
    assert {p.dtype for p in made.model.parameters() if p.requires_grad} == {torch.float32}
    bits = sum(m.weight.numel() * m.weight.itemsize * 8 for m in small.values())
    weights = sum(m.in_features * m.out_features for m in small.values())
    assert bits == 4 * weights
    assert not any("lm_head" in n or "experts.gate_up" in n for n in small)


@pytest.mark.parametrize("precision", ["FP32", "BF16", "FP16"])
def test_number_formats_are_those_of_the_base_as_it_is(tmp_path: Path, precision: str) -> None:
    directory = write_tiny("deepseek-v3", tmp_path / "model", hidden_size=64)
    small, plain = (
        load_adapted(recipe(tmp_path, precision, quantization=kind), directory).model
        for kind in ("NF4", "None")
    )
    assert {n: t.dtype for n, t in small.state_dict().items() if ".weight." not in n} == {
        n: t.dtype for n, t in plain.state_dict().items()
    }


def test_the_update_is_added_to_what_is_stored(tmp_path: Path) -> None:
    directory = write_tiny("llama", tmp_path / "model", hidden_size=64)
    made = load_adapted(recipe(tmp_path), directory)
    stored = load_model(directory, run_config(tmp_path).recipe.training.precision)
    with torch.no_grad():
        for name, module in made.model.named_modules():
            if isinstance(module, Linear4bit):
                path = name.removeprefix("base_model.model.").removesuffix(".base_layer")
                weight = dequantize_4bit(module.weight.data, module.weight.quant_state)
                stored.get_submodule(path).weight.copy_(weight)
    from peft import PeftModel

    files = save(disturb(made.model), tmp_path / "adapter")
    plain = PeftModel.from_pretrained(stored, files)
    assert_close(logits(plain), logits(made.model), terms=TINY_MODEL)


def test_evaluating_leaves_the_weights_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on a CPU with AVX-512 BF16, where bitsandbytes would pack them anew.
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: True)
    directory = write_tiny("llama", tmp_path / "model")
    model = load_adapted(recipe(tmp_path), directory).model
    before = {n: p.clone() for n, p in model.named_parameters()}
    first = logits(model)
    assert all(torch.equal(before[n], p) for n, p in model.named_parameters())
    assert torch.equal(first, logits(model))


def test_the_published_configuration_knows_nothing_of_it(tmp_path: Path) -> None:
    directory = write_tiny("llama", tmp_path / "model", hidden_size=64)
    files = save(load_adapted(recipe(tmp_path), directory).model, tmp_path / "adapter")
    config = json.loads((files / "adapter_config.json").read_text())
    assert not any("quant" in str(value).lower() for value in config.values())


def test_nothing_is_checked_or_quantised_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes.functional", None)
    plain = recipe(tmp_path, quantization="None")
    assert loading_options(plain) == {}
    check_quantization(plain, CPU)


def test_it_is_accepted_where_it_works(tmp_path: Path) -> None:
    check_quantization(recipe(tmp_path), CPU)


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes.functional", None)
    with pytest.raises(Failure, match="NF4 does not work on this cpu: ") as caught:
        check_quantization(recipe(tmp_path), CPU)
    assert caught.value.reason is Reason.DEVICE_UNSUPPORTED
    assert "bitsandbytes" in caught.value.message


@pytest.mark.parametrize("error", [RuntimeError("no kernel"), NotImplementedError("no kernel")])
def test_a_device_without_a_kernel_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def broken(*_args: Any, **_named: Any) -> None:
        raise error

    monkeypatch.setattr("bitsandbytes.functional.quantize_4bit", broken)
    with pytest.raises(Failure, match="no kernel") as caught:
        check_quantization(recipe(tmp_path), CPU)
    assert caught.value.reason is Reason.DEVICE_UNSUPPORTED


def test_the_number_format_is_that_of_the_training(tmp_path: Path) -> None:
    options = loading_options(recipe(tmp_path, "BF16"))["quantization_config"]
    assert options.bnb_4bit_compute_dtype is torch.bfloat16
    assert options.bnb_4bit_quant_storage is torch.bfloat16
