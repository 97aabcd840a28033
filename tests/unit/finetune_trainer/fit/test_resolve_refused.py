"""What can not work is refused before any weights are there."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune_contract.reasons import Reason
from finetune_contract.recipe import ModelRecipe, Precision
from finetune_trainer.fit.fitting import Room
from finetune_trainer.fit.resolve import check_device
from finetune_trainer.process.errors import Failure
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


class SecondNode(Nodes):
    """A rank that only does what every rank does."""

    def lead(self, work: Callable[[], Any]) -> Any:
        raise AssertionError("another has found nothing wrong")


@pytest.mark.parametrize(
    "options", [{"training": {"precision": "FP16"}}, {"lora": {"quantization": "NF4"}}]
)
def test_any_node_may_refuse(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes.functional", None)
    with pytest.raises(Failure) as caught:
        settle(tmp_path, nodes=SecondNode(), **options)
    assert caught.value.reason is Reason.DEVICE_UNSUPPORTED


def test_what_can_not_fit_is_refused_with_numbers_and_remedies(tmp_path: Path) -> None:
    with pytest.raises(Failure) as caught:
        settle(
            tmp_path,
            nodes=Nodes([Room(1000 * MIB, 1000 * MIB)]),
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


def test_a_host_without_room_for_a_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(Failure, match=r"host's memory for a checkpoint .*workers\.resources"):
        settle(tmp_path, nodes=Nodes([Room(1000 * 1000 * MIB, MIB)]))


def test_without_a_remedy_a_larger_device_is_advised(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="use devices with more memory"):
        settle(tmp_path, nodes=Nodes([Room(MIB, MIB)]))


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


@pytest.mark.parametrize(
    ("rollout", "drawn"),
    [
        (None, True),
        ({"engine": "OpenAI", "uri": "http://vllm", "adapterDirectory": "/a"}, False),
    ],
)
def test_a_model_that_can_not_be_tried_is_told_and_asked_to_draw_where_it_must(
    rollout: dict[str, str] | None,
    drawn: bool,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    write_untriable(tmp_path / "model")
    config = rollout_config(tmp_path, rollout=rollout, lora={"targets": ["Attention"]})
    nodes = Nodes([Room(MIB**2, MIB**2)])
    settle_config(config, tmp_path / "model", grpo_wish(config), nodes)
    told = [message for message in caplog.messages if "could not be checked" in message]
    purposes = ["causal attention", *(["drawing completions"] if drawn else [])]
    assert told == [f"model_type olmo2 could not be checked for {purpose}" for purpose in purposes]


@pytest.mark.parametrize(
    ("precision", "device", "capability", "message"),
    [
        (Precision.FP16, CPU, None, "needs a GPU; take BF16 or FP32"),
        (Precision.BF16, GPU, (7, 5), "T4, which is older than .* take FP16 or FP32"),
        (Precision.BF16, CPU, None, None),
        (Precision.FP32, CPU, None, None),
        (Precision.FP16, GPU, (7, 5), None),
        (Precision.FP32, GPU, (7, 5), None),
        (Precision.BF16, GPU, (8, 0), None),
    ],
)
def test_a_format_that_the_device_lacks_is_refused(
    precision: Precision,
    device: torch.device,
    capability: tuple[int, int] | None,
    message: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "T4")
    if message is None:
        check_device(precision, device)
        return
    with pytest.raises(Failure, match=f"spec.training.precision {precision} .*{message}") as caught:
        check_device(precision, device)
    assert caught.value.reason is Reason.DEVICE_UNSUPPORTED


def header(text: str) -> bytes:
    return len(text).to_bytes(8, "little") + text.encode()


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"xx",
        b"\xff" * 8 + b"{}",
        header("[]"),
        header("[" * 4000 + "]" * 4000),
        header('{"a": {"dtype": "F32", "shape": ["x"]}}'),
        header('{"a": {"dtype": "F32", "shape": [-1]}}'),
        header('{"a": {"dtype": 7, "shape": [1]}}'),
    ],
)
def test_a_damaged_header_is_named(damage: bytes, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(damage)
    source = resolve_model(ModelRecipe(uri=tmp_path.as_uri()), None)
    with pytest.raises(Failure, match=r"model\.safetensors is damaged; upload it again") as caught:
        read_headers(source, None)
    assert caught.value.reason is Reason.MODEL_UNSUPPORTED
