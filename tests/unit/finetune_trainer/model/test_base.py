"""Which models are taken, and which are refused by name."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from finetune_contract.artifact import (
    DatasetIdentity,
    ModelIdentity,
    Provenance,
    Serving,
    TrainingSummary,
)
from finetune_contract.reasons import Reason
from finetune_contract.recipe import LoraRecipe, LoraTarget, Precision
from finetune_contract.resolved import RoleCoverage
from finetune_trainer.adapter.card import save_card
from finetune_trainer.adapter.export import save_adapter, save_tokenizer
from finetune_trainer.adapter.lora import adapt
from finetune_trainer.adapter.roles import map_roles
from finetune_trainer.model.base import empty_model, load_model
from finetune_trainer.model.files import read_config
from finetune_trainer.model.tokenizer import load_tokenizer, vocabulary_size
from finetune_trainer.process.errors import Failure
from support.models.tiny_llama import byte_tokenizer, write_model
from support.models.tiny_models import write_tiny

DEEP = "[" * 4000 + "]" * 4000
CHARACTERS = {"type": "Precompiled", "precompiled_charsmap": "AAAA"}
AROUND = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}],
    "pair": [],
    "special_tokens": {},
}
IDENTITY = ModelIdentity(uri="hf://org/name", revision="c0ffee")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


def unsupported(action: Any, *arguments: Any) -> str:
    with pytest.raises(Failure) as caught:
        action(*arguments)
    assert caught.value.reason is Reason.MODEL_UNSUPPORTED
    return caught.value.message


def adapted(directory: Path) -> Any:
    model = load_model(directory, Precision.FP32)
    return adapt(model, LoraRecipe(rank=4), map_roles(model), seed=3).model


def test_missing_tensors_are_not_invented(directory: Path) -> None:
    weights = directory / "model.safetensors"
    tensors = load_file(weights)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, weights, metadata={"format": "pt"})
    message = unsupported(load_model, directory, Precision.FP32)
    assert "lack 1 tensors, such as model.layers.1.mlp.up_proj.weight" in message


def test_a_shard_that_is_gone_is_named(tmp_path: Path) -> None:
    directory = write_tiny("llama", tmp_path, max_shard_size="40KB")
    next(directory.glob("model-00002-of-*")).unlink()
    assert "a file of the model is missing" in unsupported(load_model, directory, Precision.FP32)


@pytest.mark.parametrize("name", ["llama", "qwen3-moe"])
def test_weights_of_another_size_are_refused(name: str, tmp_path: Path) -> None:
    directory = write_tiny(name, tmp_path)
    change_config(directory, intermediate_size=52, moe_intermediate_size=20)
    assert "of other sizes than its config.json" in unsupported(
        load_model, directory, Precision.FP32
    )


@pytest.mark.parametrize(
    "error", [OSError(errno.EIO, "input/output"), torch.OutOfMemoryError("no memory")]
)
def test_faults_of_the_machine_are_not_the_model_s(
    directory: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: Any, **_named: Any) -> None:
        raise error

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", fail)
    with pytest.raises(type(error)):
        load_model(directory, Precision.FP32)


@pytest.mark.parametrize("method", ["gptq", "awq", "compressed-tensors", "fp8", "bitsandbytes"])
def test_weights_that_are_stored_quantised_are_refused(directory: Path, method: str) -> None:
    change_config(directory, quantization_config={"quant_method": method})
    message = unsupported(empty_model, directory)
    assert f"quant_method {method} " in message
    assert "spec.lora.quantization NF4 quantises" in message
    nested = {"text_config": {"quantization_config": {"quant_method": method}}}
    change_config(directory, quantization_config=None, **nested)
    assert f"quant_method {method} " in unsupported(empty_model, directory)
    change_config(directory, text_config=None)
    empty_model(directory)


def change_config(directory: Path, **fields: Any) -> None:
    path = directory / "config.json"
    known = {**json.loads(path.read_text()), **fields}
    path.write_text(json.dumps({k: v for k, v in known.items() if v is not None}))


def test_damaged_files_are_named(directory: Path) -> None:
    (directory / "model.safetensors").write_bytes(b"\xff" * 64)
    assert "is damaged" in unsupported(load_model, directory, Precision.FP32)
    config = (directory / "config.json").read_text()
    (directory / "config.json").write_text("{")
    assert "config.json is not JSON" in unsupported(read_config, directory)
    (directory / "config.json").write_text("[]")
    assert "config.json is not a JSON object" in unsupported(read_config, directory)
    (directory / "config.json").write_text(config)
    (directory / "tokenizer.json").unlink()
    (directory / "tokenizer_config.json").unlink()
    assert "tokenizer can not be loaded" in unsupported(load_tokenizer, directory)


@pytest.mark.parametrize(
    ("name", "text", "action"),
    [
        ("config.json", DEEP, empty_model),
        ("config.json", DEEP, vocabulary_size),
        ("generation_config.json", DEEP, empty_model),
        ("generation_config.json", "[]", empty_model),
        ("tokenizer.json", DEEP, load_tokenizer),
        ("tokenizer.json", "{}", load_tokenizer),
        ("tokenizer_config.json", f'{{"x": {DEEP}}}', load_tokenizer),
        ("tokenizer_config.json", "[]", load_tokenizer),
    ],
)
def test_whatever_a_model_s_files_hold_is_a_fault_of_the_model(
    directory: Path, name: str, text: str, action: Any
) -> None:
    (directory / name).write_text(text)
    assert "tokenizer" in (message := unsupported(action, directory)) or name in message


@pytest.mark.parametrize("part", [{"normalizer": CHARACTERS}, {"post_processor": AROUND}])
def test_a_tokenizer_over_which_its_library_panics_is_a_fault_of_the_model(
    directory: Path, part: dict[str, Any]
) -> None:
    path = directory / "tokenizer.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **part}))
    assert "tokenizer can not be loaded" in unsupported(load_tokenizer, directory)


@pytest.mark.parametrize(
    "fields", [{"hidden_size": -4}, {"num_attention_heads": 0}, {"vocab_size": -1}]
)
def test_sizes_that_no_model_has_are_a_fault_of_the_model(
    directory: Path, fields: dict[str, int]
) -> None:
    change_config(directory, **fields)
    assert "config.json describes no causal language model" in unsupported(empty_model, directory)


@pytest.mark.parametrize("told", ["x", 1e30, [7]])
def test_a_vocabulary_of_no_size_is_not_told(directory: Path, told: Any) -> None:
    change_config(directory, vocab_size=told, text_config=7)
    assert vocabulary_size(directory) is None
    change_config(directory, vocab_size=None, text_config={"vocab_size": 7})
    assert vocabulary_size(directory) == 7


def test_code_of_a_model_is_never_run(directory: Path, tmp_path: Path) -> None:
    (directory / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    config = json.loads((directory / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "evil.Evil", "AutoConfig": "evil.Evil"}
    (directory / "config.json").write_text(json.dumps(config))
    load_model(directory, Precision.FP32)
    assert not (tmp_path / "ran").exists()


def test_an_adapter_names_its_base_and_is_the_same_file_twice(
    directory: Path, tmp_path: Path
) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        save_adapter(adapted(directory), IDENTITY, tmp_path / name)
        save_tokenizer(load_tokenizer(directory), tmp_path / name)
    config = json.loads((tmp_path / "first" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "org/name"  # what loaders of the hub understand
    assert config["revision"] == "c0ffee"
    assert config["inference_mode"] is True
    assert config["target_modules"] == sorted(config["target_modules"])
    for file in (tmp_path / "first").iterdir():
        assert (tmp_path / "second" / file.name).read_bytes() == file.read_bytes()
        assert str(directory) not in file.read_text("latin1")
    tokenizer = json.loads((tmp_path / "first" / "tokenizer_config.json").read_text())
    assert not {"local_files_only", "is_local", "name_or_path"} & set(tokenizer)
    template = (tmp_path / "first" / "chat_template.jinja").read_text()
    assert template == byte_tokenizer().chat_template


def test_the_card_tells_where_the_adapter_comes_from(tmp_path: Path) -> None:
    from support.trainer.runs import run_config

    recipe = run_config(tmp_path).recipe
    digest = "sha256:" + "d" * 64
    provenance = Provenance(
        recipe_digest=recipe.digest(),
        model=IDENTITY,
        datasets=(DatasetIdentity(uri="s3://d/a.jsonl", sha256=digest, rows=3),),
    )
    summary = TrainingSummary(steps=60, published_step=60, supervised_tokens=99, final_loss=0.25)
    coverage = (RoleCoverage(role=LoraTarget.ATTENTION, found=8, adapted=8),)
    save_card(
        recipe,
        provenance,
        summary,
        coverage,
        Serving(vllm=True),
        ["<|im_end|>"],
        ["an advice"],
        tmp_path,
    )
    card = (tmp_path / "README.md").read_text()
    assert card.startswith("---\nbase_model: org/name\nlibrary_name: peft\n")
    for fact in (
        f"| s3://d/a.jsonl | 3 | {digest} |",
        recipe.digest(),
        "c0ffee",
        "| 60 |",
        "| Generation stops at | `<|im_end|>` |",
        "| To be minded | an advice |",
        "| Attention | 8 of 8 |",
    ):
        assert fact in card
    assert '"globalBatchSize": 8' in card
