"""Auto is settled, and what can not work is refused, from small files and headers alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from finetune_contract.layout import Checkpointing, ZeroStage
from finetune_contract.reasons import Reason
from finetune_contract.recipe import ModelRecipe, Precision
from finetune_contract.runconfig import RunConfig
from finetune_trainer import resolve as resolve_module
from finetune_trainer import twin
from finetune_trainer.distributed import Ranks
from finetune_trainer.errors import Failure
from finetune_trainer.fitting import Fitter, Room
from finetune_trainer.headers import read_headers
from finetune_trainer.resolve import check_device, resolve, room, smallest
from finetune_trainer.sources import resolve_model
from support.rollout_runs import rollout_config
from support.tiny_models import write_tiny
from support.trainer_runs import run_config

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
MIB = 2**20


def cut_weights(directory: Path) -> None:
    """Leave of each weights file its header alone."""
    for path in directory.glob("*.safetensors"):
        data = path.read_bytes()
        path.write_bytes(data[: 8 + int.from_bytes(data[:8], "little")])


class Nodes:
    """Two ranks, each on a node of its own, one after the other."""

    device = CPU

    def everywhere(self, work: Callable[[], Any]) -> list[Any]:
        return [work(), work()]

    def lead(self, work: Callable[[], Any]) -> Any:
        return work()


def settle(directory: Path, name: str = "llama", **options: Any) -> tuple[RunConfig, Any]:
    model = directory / "model"
    if not model.exists():
        write_tiny(name, model)
        cut_weights(model)
    config = run_config(directory, **options)
    source = resolve_model(ModelRecipe(uri=model.as_uri()), None)
    return resolve(config, source, model, cast(Ranks, Nodes()))


def test_what_reward_models_hold_is_part_of_the_plan(tmp_path: Path) -> None:
    model = tmp_path / "model"
    write_tiny("llama", model)
    config, source = run_config(tmp_path), resolve_model(ModelRecipe(uri=model.as_uri()), None)
    _, without = resolve(config, source, model, cast(Ranks, Nodes()))
    _, beside = resolve(config, source, model, cast(Ranks, Nodes()), 123 * MIB)
    assert beside.memory.overhead - without.memory.overhead == 123 * MIB
    assert beside.memory.total - without.memory.total == 123 * MIB


def test_auto_is_settled_without_weights_and_told(tmp_path: Path) -> None:
    config, plan = settle(tmp_path, processesPerWorker=2)
    layout = config.layout
    assert (layout.micro_batch_size, layout.zero_stage) == (4, ZeroStage.DDP)
    assert layout.gradient_checkpointing is Checkpointing.NEVER
    assert (plan.micro_batch_size, plan.accumulation_steps) == (4, 1)
    assert (plan.zero_stage, plan.gradient_checkpointing, plan.packing) == (0, False, True)
    assert plan.memory.weights == 4 * 32_096
    assert plan.memory.available == room(CPU, layout).device
    assert plan.lora == ()


@pytest.mark.parametrize("host", [2, 4])
def test_the_node_with_the_least_memory_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: int
) -> None:
    rooms = iter([Room(3000 * MIB, host * 1000 * MIB), Room(2000 * MIB, 3000 * MIB)])
    monkeypatch.setattr(resolve_module, "room", lambda *_: next(rooms))
    _, plan = settle(tmp_path)
    assert plan.memory.available == 2000 * MIB
    pair = (Room(3, host), Room(2, 3))
    assert smallest(pair) == smallest(reversed(pair)) == Room(2, min(host, 3))


@pytest.mark.parametrize("check", ["check_device", "check_quantization"])
def test_any_node_may_refuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check: str) -> None:
    answers = iter([None, Failure(Reason.DEVICE_UNSUPPORTED, "the second node")])

    def answer(*_: Any) -> None:
        if (failure := next(answers)) is not None:
            raise failure

    monkeypatch.setattr(resolve_module, check, answer)
    with pytest.raises(Failure, match="the second node"):
        settle(tmp_path)


def test_what_the_user_set_is_kept(tmp_path: Path) -> None:
    config, plan = settle(
        tmp_path,
        processesPerWorker=2,
        microBatchSize=2,
        zeroStage=2,
        gradientCheckpointing="Always",
        packing=False,
    )
    assert (config.layout.micro_batch_size, config.layout.zero_stage) == (2, ZeroStage.GRADIENTS)
    assert (plan.accumulation_steps, plan.gradient_checkpointing, plan.packing) == (2, True, False)


def test_an_architecture_that_is_not_known_is_padded(tmp_path: Path) -> None:
    config, plan = settle(tmp_path, "olmo2")
    assert (config.layout.packing, plan.packing) == (False, False)


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
    source = resolve_model(ModelRecipe(uri=(tmp_path / "model").as_uri()), None)
    resolve(config, source, tmp_path / "model", cast(Ranks, Nodes()))
    assert tried == asked


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
    source = resolve_model(ModelRecipe(uri=(tmp_path / "model").as_uri()), None)
    resolve(config, source, tmp_path / "model", cast(Ranks, Nodes()))
    told = [message for message in caplog.messages if message.startswith("prompts are computed")]
    expected = f"prompts are computed more than once for their completions: {why}"
    assert told == ([] if why is None else [expected])


@pytest.mark.parametrize("splits", [True, False])
def test_logits_that_exist_whole_are_counted(
    splits: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = []

    class Seen(Fitter):
        def settle(self, wish: Any) -> Any:
            shapes.append(self.model)
            return super().settle(wish)

    monkeypatch.setattr(resolve_module, "Fitter", Seen)
    if not splits:
        monkeypatch.setattr(twin, "MOST_PARAMETERS", 10)
    settle(tmp_path, "olmo2")
    assert [shape.whole_logits for shape in shapes] == [not splits]


def test_the_host_s_memory_is_divided_among_its_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resolve_module, "memory_bytes", lambda: 1000)
    layout: Any = SimpleNamespace(processes_per_worker=4)
    assert room(CPU, layout) == Room(250, 250)
    sizes = [80, 24, 40]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(sizes))
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda i: SimpleNamespace(total_memory=sizes[i])
    )
    assert room(GPU, layout) == Room(24, 250)


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


def test_headers_of_all_files_are_put_together(tmp_path: Path) -> None:
    write_tiny("llama", tmp_path, max_shard_size="40KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    source = resolve_model(ModelRecipe(uri=tmp_path.as_uri()), None)
    headers = read_headers(source, None)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert headers.keys() == index["weight_map"].keys()
    assert headers["model.embed_tokens.weight"].shape == (259, 32)
    assert headers["model.embed_tokens.weight"].dtype == "F32"
