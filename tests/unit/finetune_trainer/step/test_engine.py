"""What is not finite stops a step before the weights change; FP16's overflow repeats it."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from finetune_contract.layout import ZeroStage
from support.models.tiny_llama import write_model
from support.trainer.engine_faults import step_with_faults
from support.trainer.fork_server import ForkServer
from support.trainer.runs import run_config

COVERING = (ZeroStage.DDP, ZeroStage.PARAMETERS)
STAGES = [
    pytest.param(stage, marks=[] if stage in COVERING else [pytest.mark.slow])
    for stage in ZeroStage
]
Reports = Callable[[ZeroStage], list[Any]]


@pytest.fixture(scope="module")
def reports(server: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> Reports:
    """Return a function that tells what each of two ranks saw under a stage, by fault."""

    @cache
    def group(covering: bool) -> list[dict[str, Any]]:
        stages = [stage for stage in ZeroStage if (stage in COVERING) == covering]
        return run_ranks(server, stages, tmp_path_factory.mktemp("engine"))

    return lambda stage: [report[stage.name] for report in group(stage in COVERING)]


def run_ranks(server: ForkServer, stages: list[ZeroStage], directory: Path) -> list[dict[str, Any]]:
    write_model(directory / "model")
    configs = {
        stage.name: run_config(
            directory,
            lora={"targets": ["Attention", "Head"]},
            training={"globalBatchSize": 4, "maxSteps": 1},
            processesPerWorker=2,
            microBatchSize=1,
            zeroStage=stage,
            gradientCheckpointing="Never",
        ).to_json()
        for stage in stages
    }
    (directory / "cases.json").write_text(json.dumps(configs))
    server.call(step_with_faults, 2, directory)
    return [json.loads((directory / f"seen-{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_what_is_not_finite_is_named_alike_on_all_ranks_before_weights_change(
    what: str, stage: ZeroStage, reports: Reports
) -> None:
    for report in reports(stage):
        found = report[what]
        assert found["message"] == f"the {what} of micro-batch 1 on rank 1 is not finite"
        assert (found["reason"], found["rank"], found["micro_batch"]) == ("NonFiniteLoss", 1, 1)
        assert found["unchanged"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_sum_that_is_not_finite_is_no_step(stage: ZeroStage, reports: Reports) -> None:
    for report in reports(stage):
        found = report["summed gradient"]
        assert found["message"].startswith("the summed gradient of micro-batch ")
        assert found["reason"] == "NonFiniteLoss"
        assert found["unchanged"]


@pytest.mark.parametrize("stage", STAGES)
def test_an_overflow_repeats_the_step_with_half_the_scale(
    stage: ZeroStage, reports: Reports
) -> None:
    for report in reports(stage):
        found = report["overflow"]
        assert found["scale"] == 16384.0  # 65536, halved twice
        assert found["stops_asked"] == 6  # two micro-batches, done three times
        assert found["loss"] == pytest.approx(found["plain_loss"], abs=1e-6)
        assert found["norm"] == pytest.approx(found["plain_norm"], rel=1e-6)
        assert found["apart"] < 1e-6  # from the weights of a run without a scale
        assert found["dropped"] == found["plain_dropped"]  # the same random numbers


@pytest.mark.parametrize("stage", STAGES)
def test_a_scale_that_can_not_be_halved_ends_the_run(stage: ZeroStage, reports: Reports) -> None:
    for report in reports(stage):
        found = report["endless overflow"]
        assert found["reason"] == "NonFiniteLoss"
        assert found["unchanged"]


@pytest.mark.parametrize("stage", STAGES)
def test_ranks_may_have_unlike_numbers_of_chunks(stage: ZeroStage, reports: Reports) -> None:
    for report in reports(stage):
        found = report["chunks"]
        assert found["losses"][0] == pytest.approx(found["losses"][1], rel=1e-5)
        assert found["norms"][0] == pytest.approx(found["norms"][1], rel=1e-5)
        assert found["apart"] < 1e-5


@pytest.mark.parametrize("stage", STAGES)
def test_a_stop_leaves_the_weights_alone(stage: ZeroStage, reports: Reports) -> None:
    for report in reports(stage):
        found = report["stop"]
        assert found == {"outcome": None, "unchanged": True}


@pytest.mark.parametrize("stage", STAGES)
def test_kernels_are_deterministic_where_the_recipe_asks(
    stage: ZeroStage, reports: Reports
) -> None:
    for report in reports(stage):
        assert report["deterministic"] == {"True": True, "False": False}


@pytest.mark.parametrize("stage", STAGES)
def test_an_adapter_that_the_model_does_not_use_is_named(
    stage: ZeroStage, reports: Reports
) -> None:
    for report in reports(stage):
        found = report["unused"]
        assert found["reason"] == "ModelUnsupported"
        assert found["message"].startswith("no gradient reaches 2 of 18 adapter tensors")
        assert "layers.1.self_attn.k_proj.lora_A" in found["message"]
        assert found["unchanged"]


@pytest.mark.parametrize("stage", STAGES)
def test_the_eval_loss_is_the_step_s_without_dropout(stage: ZeroStage, reports: Reports) -> None:
    for report in reports(stage):
        found = report["loss sum"]
        assert found["summed"] == pytest.approx(found["stepped"], rel=1e-5)
        assert not found["keeps_graph"]
