"""Where the base model's weights are loaded to, and that they are the same there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import deepspeed
import pytest
import torch

from finetune_contract.layout import ZeroStage
from finetune_contract.progress import Phase
from finetune_trainer.adapter.load import load_adapted, placement_on
from finetune_trainer.course.progress import Reporter
from finetune_trainer.model.base import load_model
from finetune_trainer.process.distributed import Ranks
from finetune_trainer.step.sharding import prepare_deepspeed, sharded_loading
from finetune_trainer.store.sources import resolve_model
from finetune_trainer.train import load
from support.models.tiny_models import write_tiny
from support.models.tolerance import TINY_MODEL, assert_close
from support.trainer.parts import resolved_run
from support.trainer.runs import run_config

CPU, GPU = torch.device("cpu"), torch.device("cuda", 1)


@pytest.mark.parametrize("stage", list(ZeroStage))
def test_weights_go_straight_to_the_process_s_gpu_unless_they_are_sharded(stage: ZeroStage) -> None:
    sharded = stage is ZeroStage.PARAMETERS
    assert placement_on(GPU, stage) == ({} if sharded else {"device_map": {"": GPU}})
    assert placement_on(CPU, stage) == {}


def test_the_model_is_loaded_where_it_is_told(tmp_path: Path) -> None:
    directory = write_tiny("llama", tmp_path / "model")
    nowhere = {"device_map": {"": torch.device("meta")}}
    model = load_adapted(run_config(tmp_path).recipe, directory, None, nowhere).model
    assert model.get_base_model().lm_head.weight.is_meta


@pytest.mark.parametrize("precision", ["BF16", "FP16", "FP32"])
def test_shards_are_of_the_weights_that_one_process_has(
    tmp_path: Path, alone: Ranks, precision: str
) -> None:
    directory = write_tiny("deepseek-v3", tmp_path / "model")
    layout = {"zeroStage": 3, "microBatchSize": 1, "offload": ["Parameters"]}
    config = run_config(tmp_path, training={"precision": precision}, **layout)
    whole = load_adapted(config.recipe, directory).model.state_dict()
    prepare_deepspeed(alone)
    with sharded_loading(resolved_run(config, alone)):
        sharded = load_adapted(config.recipe, directory).model
    with deepspeed.zero.GatheredParameters(list(sharded.parameters())):
        found = sharded.state_dict()
        assert {n: t.dtype for n, t in found.items()} == {n: t.dtype for n, t in whole.items()}
        assert all(torch.equal(found[name], whole[name]) for name in whole)


PHI3: dict[str, Any] = {
    "max_position_embeddings": 64,
    "original_max_position_embeddings": 16,
    "rope_scaling": {"type": "longrope", "short_factor": [1.0] * 4, "long_factor": [4.0] * 4},
}


@pytest.mark.parametrize(("sequence_length", "factors"), [(16, "short"), (17, "long")])
def test_a_row_is_scored_alike_whatever_stands_beside_it(
    sequence_length: int, factors: str, tmp_path: Path
) -> None:
    directory = write_tiny("phi3", tmp_path / "model", **PHI3)
    training = {"sequenceLength": sequence_length}
    model = load_adapted(run_config(tmp_path, training=training).recipe, directory).model.eval()
    plain = load_model(directory, None).eval()
    row = torch.arange(3, 13)[None]
    long_rows = torch.arange(3, 3 + 20)[None]

    def logits(of: Any, ids: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            found: torch.Tensor = of(input_ids=ids).logits[:, :10]
        return found

    short, long = logits(plain, row), logits(plain, long_rows)
    assert (short - long).abs().max() > 0.1  # transformers looks at the longest row
    wanted = short if factors == "short" else long
    for ids in (row, long_rows) if factors == "long" else (row,):
        assert_close(logits(model, ids), wanted, terms=TINY_MODEL)


def test_the_base_s_own_dropout_is_off(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rates = {"resid_pdrop": 0.5, "embd_pdrop": 0.5, "attention_dropout": 0.5}
    directory = write_tiny("phi3", tmp_path / "model", **rates)
    with caplog.at_level("INFO"):
        model = load_adapted(run_config(tmp_path).recipe, directory).model.train()
    ids = torch.arange(3, 20)[None]
    first, second = (model(input_ids=ids).logits for _ in range(2))
    assert torch.equal(first, second)
    told = [m for m in caplog.messages if m.endswith("of the base model is not used in training")]
    assert len(told) == 3


def test_dropout_that_no_field_tells_of_is_off(tmp_path: Path) -> None:
    # A whole number, which is looked for in no field.
    directory = write_tiny("phi3", tmp_path / "model", resid_pdrop=1)
    model = load_adapted(run_config(tmp_path, lora={"dropout": 0.25}).recipe, directory).model
    rates = {n: m.p for n, m in model.named_modules() if isinstance(m, torch.nn.Dropout)}
    assert {p for n, p in rates.items() if "lora_dropout" in n} == {0.25}
    assert {p for n, p in rates.items() if "lora_dropout" not in n} == {0.0}


class Noting(Reporter):
    """What a run tells of itself, and its ranks: all that is done goes into `notes`."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device
        self.notes: list[str] = []
        self.is_lead = True

    def begin(self, phase: Phase, total: int = 0) -> None:
        self.notes.append(f"begins {phase}")

    def adapted(self, coverage: Any) -> None:
        self.notes.append("loaded")

    def advised(self, advice: Any) -> None:
        self.notes.append("advised")

    def together(self, work: Callable[[], Any]) -> Any:
        made = work()
        self.notes.append("agreed")
        return made

    def wait(self) -> None:
        self.notes.append("waited")


def loading(directory: Path, device: torch.device) -> list[str]:
    """Return what is done until there must be an engine, or the device fails."""
    write_tiny("llama", directory / "model")
    config, noting = run_config(directory), Noting(device)
    run = resolved_run(config, noting, noting)
    no_objective: Any = None
    with pytest.raises((AttributeError, AssertionError, RuntimeError), match=r"CUDA|entropy"):
        load(run, resolve_model(config.recipe.model, None), no_objective)
    return noting.notes


BEFORE = ["begins Download", "agreed", "agreed", "begins Load"]


@pytest.mark.usefixtures("alone")
def test_ranks_wait_for_each_other_s_downloads_and_disks(tmp_path: Path) -> None:
    assert loading(tmp_path, CPU) == [*BEFORE, "loaded", "advised", "waited"]


@pytest.mark.usefixtures("alone")
def test_a_run_on_a_gpu_loads_its_model_onto_it(tmp_path: Path) -> None:
    assert loading(tmp_path, torch.device("cuda", 99)) == BEFORE  # which no machine has
