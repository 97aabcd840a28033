"""On fixed rollouts layout never changes GRPO's steps, nor do prompts that are shared."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune_contract.grpo import GrpoLoss
from finetune_contract.runconfig import RunConfig
from support.grpo.fixed_rollouts import GROUP, GROUPS, Steps, draw, plain_steps, read, write
from support.grpo.groups import Apart, Stepped, step_group
from support.models.tiny_models import write_tiny
from support.models.tolerance import TINY_MODEL, rounding
from support.trainer.fork_server import ForkServer
from support.trainer.runs import run_config

TOLERANCE = 5e-5
TARGETS = {
    "llama": ("Attention", "MLP"),
    "deepseek-v3": ("Attention", "MLP", "Experts", "SharedExperts"),
}
OPTIMIZERS = {
    "AdamW": {"optimizer": "AdamW", "learningRate": 1e-3, "weightDecay": 0.1},
    "SGD": {"optimizer": "SGD", "learningRate": 5e-3, "maxGradNorm": 0},
}
TRAINING = {
    "globalBatchSize": GROUP * GROUPS,
    "sequenceLength": 64,
    "maxGradNorm": 0.05,
    "seed": 7,
}
GRPO = {
    "groupSize": GROUP,
    "beta": 0.1,
    "sampling": {"maxTokens": 20, "temperature": 0.8},
    "rewards": [{"name": "right", "regex": {"pattern": "x"}}],
}
AGAIN = {"gradientCheckpointing": "Always"}
# name -> world size and layout; micro-batches below GROUP split groups
LAYOUTS: dict[str, tuple[int, dict[str, Any]]] = {
    "1 process, accumulation": (1, {"microBatchSize": 2}),
    "1 process, whole batch": (1, {"microBatchSize": 16}),
    "1 process, checkpointing": (1, {"microBatchSize": 8, **AGAIN}),
    "1 process, unshared": (1, {"microBatchSize": 8, "packing": False}),
    "2 processes, DDP": (2, {"zeroStage": 0, "microBatchSize": 4}),
    "2 processes, ZeRO-2": (2, {"zeroStage": 2, "microBatchSize": 4}),
    "2 processes, ZeRO-2, checkpointing": (2, {"zeroStage": 2, "microBatchSize": 2, **AGAIN}),
    "2 processes, ZeRO-2, unshared": (2, {"zeroStage": 2, "microBatchSize": 2, "packing": False}),
    "2 processes, ZeRO-3": (2, {"zeroStage": 3, "microBatchSize": 4}),
    "2 processes, ZeRO-3, checkpointing": (2, {"zeroStage": 3, "microBatchSize": 8, **AGAIN}),
    "2 processes, ZeRO-3, unshared": (2, {"zeroStage": 3, "microBatchSize": 4, "packing": False}),
}
Case = tuple[str, str, str, str]  # model, loss, optimizer, layout
CASES: list[Case] = [
    *product(("llama",), list(GrpoLoss), OPTIMIZERS, LAYOUTS),
    *product(("deepseek-v3",), (GrpoLoss.DAPO, GrpoLoss.GSPO), OPTIMIZERS, LAYOUTS),
]
SPLIT, SHARDED = "1 process, accumulation", "2 processes, ZeRO-2"
# These differ from the others as layouts of supervised learning do.
LEFT_OUT = {"2 processes, ZeRO-2, checkpointing", "2 processes, ZeRO-3"}
COVERING: set[Case] = {
    *product(("llama",), ("DAPO",), ("AdamW",), LAYOUTS.keys() - LEFT_OUT),
    *product(("llama",), ("DAPO",), ("SGD",), (SPLIT, SHARDED)),
    *product(("llama",), ("GRPO", "DrGRPO", "GSPO", "CISPO"), ("SGD",), (SPLIT,)),
    ("llama", "GSPO", "SGD", SHARDED),
    ("deepseek-v3", "DAPO", "SGD", SPLIT),
    ("deepseek-v3", "DAPO", "AdamW", "2 processes, ZeRO-2"),
    ("deepseek-v3", "DAPO", "AdamW", "2 processes, ZeRO-3, checkpointing"),
}
Runs = Callable[[Case], tuple[Stepped, Apart | None]]
Oracle = Callable[[str, str, str], Steps]


def marked(cases: Iterable[Case]) -> list[Any]:
    """Return test parameters; what is not in the covering part is slow."""
    return [
        pytest.param(case, id=", ".join(case), marks=[] if case in COVERING else [pytest.mark.slow])
        for case in cases
    ]


def packs(case: Case) -> bool:
    return bool(LAYOUTS[case[3]][1].get("packing", True))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("inputs")
    for name in TARGETS:
        write_tiny(name, directory / name)
    for model, loss in {case[:2] for case in CASES}:
        config = config_of(directory, (model, loss, "SGD", SPLIT))
        write(draw(config), rollouts_of(directory, model, loss))
    return directory


def rollouts_of(inputs: Path, model: str, loss: str) -> Path:
    return inputs / f"{model}-{loss}.json"


def config_of(inputs: Path, case: Case) -> RunConfig:
    model, loss, optimizer, layout = case
    world, settings = LAYOUTS[layout]
    return run_config(
        inputs,
        model=inputs / model,
        lora={"targets": TARGETS[model]},
        training={**TRAINING, **OPTIMIZERS[optimizer]},
        grpo={**GRPO, "loss": loss},
        processesPerWorker=world,
        **{"zeroStage": 0, "gradientCheckpointing": "Never", **settings},
    )


@pytest.fixture(scope="module")
def stepped(server: ForkServer, inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Return a function that steps a case with all the others of its part and world size."""

    @cache
    def group(world: int, covering: bool) -> dict[Case, tuple[Stepped, Apart | None]]:
        cases = [c for c in CASES if LAYOUTS[c[3]][0] == world and (c in COVERING) == covering]
        found = step_group(
            server,
            world,
            {
                str(index): (config_of(inputs, case), rollouts_of(inputs, *case[:2]))
                for index, case in enumerate(cases)
            },
            tmp_path_factory.mktemp(f"world-{world}") / "group",
        )
        return {case: found[str(index)] for index, case in enumerate(cases)}

    return lambda case: group(LAYOUTS[case[3]][0], case in COVERING)[case]


@pytest.fixture(scope="module")
def oracle(inputs: Path) -> Oracle:
    @cache
    def steps(model: str, loss: str, optimizer: str) -> Steps:
        config = config_of(inputs, (model, loss, optimizer, SPLIT))
        return plain_steps(config, read(rollouts_of(inputs, model, loss)))

    return steps


@pytest.mark.parametrize("case", marked(CASES))
def test_every_layout_does_the_oracles_steps(case: Case, oracle: Oracle, stepped: Runs) -> None:
    expected, (result, _) = oracle(*case[:3]), stepped(case)
    np.testing.assert_allclose(result.losses, expected.losses, atol=TOLERANCE)
    np.testing.assert_allclose(result.norms, expected.norms, rtol=TOLERANCE)
    found = [stats["entropy"] for stats in result.stats]
    np.testing.assert_allclose(found, expected.entropies, rtol=TOLERANCE)
    assert min(expected.norms) > TRAINING["maxGradNorm"]  # clipping, where there is any, bites
    adapter = result.adapter()
    assert adapter.keys() == expected.adapter.keys()
    for name, tensor in expected.adapter.items():
        np.testing.assert_allclose(adapter[name], tensor, atol=TOLERANCE, err_msg=name)


@pytest.mark.parametrize("case", marked(case for case in CASES if packs(case)))
def test_a_shared_prompt_changes_nothing(case: Case, stepped: Runs) -> None:
    stats, apart = stepped(case)
    assert apart is not None
    assert apart.log_probs <= rounding(TINY_MODEL)
    assert apart.gradients <= 1e-4
    assert apart.norms <= 1e-4
    assert apart.reached == len(stats.adapter())
