"""What can not work is refused before any weights are there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from finetune_contract.reasons import Reason
from finetune_contract.recipe import ModelRecipe, Precision
from finetune_trainer.fit import resolve as resolve_module
from finetune_trainer.fit.fitting import Room
from finetune_trainer.fit.resolve import check_device
from finetune_trainer.model import twin
from finetune_trainer.process.errors import Failure
from finetune_trainer.store.headers import read_headers
from finetune_trainer.store.sources import resolve_model
from support.grpo.draws import rollout_config
from support.models.tiny_models import write_tiny
from support.models.weightless import CPU, GPU, MIB, grpo_wish, settle, settle_config


@pytest.mark.parametrize("check", ["check_device", "check_quantization"])
def test_any_node_may_refuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check: str) -> None:
    answers = iter([None, Failure(Reason.DEVICE_UNSUPPORTED, "the second node")])

    def answer(*_: Any) -> None:
        if (failure := next(answers)) is not None:
            raise failure

    monkeypatch.setattr(resolve_module, check, answer)
    with pytest.raises(Failure, match="the second node"):
        settle(tmp_path)


def test_what_can_not_fit_is_refused_with_numbers_and_remedies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolve_module, "room", lambda *_: Room(1000 * MIB, 1000 * MIB))
    with pytest.raises(Failure) as caught:
        settle(
            tmp_path,
            training={"sequenceLength": 2048},
            microBatchSize=8,
            gradientCheckpointing="Never",
        )
    assert caught.value.reason is Reason.INSUFFICIENT_MEMORY
    message = caught.value.message
    assert message.startswith("each process needs about 1.0 of 1.0 GiB (weights 0.0, ")
    assert "one of these would fit: " in message
    assert "checkpoint" not in message
    assert "spec.training.microBatchSize 1" in message


def test_a_host_without_room_for_a_checkpoint_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolve_module, "room", lambda *_: Room(1000 * 1000 * MIB, MIB))
    with pytest.raises(Failure, match=r"host's memory for a checkpoint .*workers\.resources"):
        settle(tmp_path)


def test_without_a_remedy_a_larger_device_is_advised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolve_module, "room", lambda *_: Room(MIB, MIB))
    with pytest.raises(Failure, match="use devices with more memory"):
        settle(tmp_path)


def test_a_role_that_the_model_lacks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Failure, match=r"no layer in the role Experts of spec\.lora\.targets") as e:
        settle(tmp_path, lora={"targets": ["Experts"]})
    assert e.value.reason is Reason.MODEL_UNSUPPORTED


def test_what_peft_can_not_do_is_refused_without_weights(tmp_path: Path) -> None:
    with pytest.raises(Failure, match=r"spec\.lora\.dora does not work with .* Router"):
        settle(tmp_path, "qwen3-moe", lora={"targets": ["Router"], "dora": True})


def test_sequences_beyond_a_model_s_positions_are_refused_without_weights(tmp_path: Path) -> None:
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    write_tiny("llama", tmp_path / "model", rope_parameters=rope)
    settle(tmp_path, training={"sequenceLength": 256})
    with pytest.raises(Failure, match=r"spec\.training\.sequenceLength is 257, but the base model"):
        settle(tmp_path, training={"sequenceLength": 257})


ENCODERS = {"bert": {}, "roberta": {"pad_token_id": 1}}


@pytest.mark.parametrize("model_type", ENCODERS)
def test_a_model_that_sees_what_it_is_to_predict_is_refused(
    model_type: str, tmp_path: Path
) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        model_type,
        **ENCODERS[model_type],
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        vocab_size=259,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "model")
    with pytest.raises(
        Failure, match=f"model_type {model_type}\\) is no causal language"
    ) as caught:
        settle(tmp_path, lora={"targets": ["Attention"]})
    assert caught.value.reason is Reason.MODEL_UNSUPPORTED


def test_a_model_that_can_not_be_tried_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(twin, "MOST_PARAMETERS", 10)
    settle(tmp_path, "olmo2")
    assert "model_type olmo2 could not be checked for causal attention" in caplog.messages


@pytest.mark.parametrize(
    ("name", "rollout", "asked"),
    [
        ("olmo2", None, ["olmo2"]),
        ("olmo2", {"engine": "OpenAI", "uri": "http://vllm", "adapterDirectory": "/a"}, []),
        ("llama", None, []),
    ],
)
def test_whether_a_model_can_be_drawn_with_is_asked_where_it_must_be(
    name: str,
    rollout: dict[str, str] | None,
    asked: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[str] = []
    monkeypatch.setattr(
        resolve_module, "check_drawing", lambda model: tried.append(model.config.model_type)
    )
    write_tiny(name, tmp_path / "model")
    config = rollout_config(tmp_path, rollout=rollout, lora={"targets": ["Attention"]})
    settle_config(config, tmp_path / "model", grpo_wish(config))
    assert tried == asked


@pytest.mark.parametrize(
    ("precision", "device", "capability", "message"),
    [
        (Precision.FP16, CPU, None, "needs a GPU; take BF16 or FP32"),
        (Precision.BF16, GPU, (7, 5), "T4, which is older than .* take FP16 or FP32"),
    ],
)
def test_a_format_that_the_device_lacks_is_refused(
    precision: Precision,
    device: torch.device,
    capability: tuple[int, int] | None,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "T4")
    with pytest.raises(Failure, match=f"spec.training.precision {precision} .*{message}") as caught:
        check_device(precision, device)
    assert caught.value.reason is Reason.DEVICE_UNSUPPORTED


@pytest.mark.parametrize(
    ("precision", "device", "capability"),
    [
        (Precision.BF16, CPU, None),
        (Precision.FP32, CPU, None),
        (Precision.FP16, GPU, (7, 5)),
        (Precision.FP32, GPU, (7, 5)),
        (Precision.BF16, GPU, (8, 0)),
    ],
)
def test_a_format_that_the_device_has_is_taken(
    precision: Precision,
    device: torch.device,
    capability: tuple[int, int] | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    check_device(precision, device)


@pytest.mark.parametrize("damage", [b"", b"\xff" * 8 + b"{}", b"\x02" + b"\0" * 7 + b"[]", b"xx"])
def test_a_damaged_header_is_named(damage: bytes, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(damage)
    source = resolve_model(ModelRecipe(uri=tmp_path.as_uri()), None)
    with pytest.raises(Failure, match=r"model\.safetensors is damaged; upload it again") as caught:
        read_headers(source, None)
    assert caught.value.reason is Reason.MODEL_UNSUPPORTED
