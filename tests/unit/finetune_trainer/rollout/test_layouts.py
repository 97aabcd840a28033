"""Which tokens are drawn depends on no layout, and training goes on as if nothing was drawn."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from finetune_contract.reasons import Reason
from support.grpo.draws import SAMPLES, Told, draw_group, rollout_config
from support.models.tiny_models import write_tiny
from support.trainer.fork_server import ForkServer

MODELS: dict[str, dict[str, Any]] = {
    "llama": {"targets": ["Attention", "MLP"]},
    "deepseek-v3": {"targets": ["Attention", "MLP", "Experts", "SharedExperts"]},
    "olmo2": {"targets": ["Attention"]},
}
STAGES = (0, 2, 3)
COVERING = {("llama", 2), ("llama", 3), ("deepseek-v3", 3)}
Case = tuple[str, int]  # model, ZeRO stage of two processes
Drawn = Callable[[Case], tuple[Told, list[Told]]]
CASES = [
    pytest.param((name, stage), marks=[] if (name, stage) in COVERING else [pytest.mark.slow])
    for name in MODELS
    for stage in STAGES
]


@pytest.fixture(scope="module")
def drawn(server: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    """Return a function that tells what one process saw, and what each of two."""

    @cache
    def group(world: int, covering: bool) -> dict[str, list[Told]]:
        cases = [
            (name, stage)
            for name in MODELS
            for stage in STAGES
            if ((name, stage) in COVERING) == covering
        ]
        directory = tmp_path_factory.mktemp("layouts")
        return draw_group(
            server,
            world,
            {_name(case, world): _config(directory, case, world) for case in cases},
            directory / "runs",
        )

    def of(case: Case) -> tuple[Told, list[Told]]:
        covering = case in COVERING
        return (
            group(1, covering)[_name(case, 1)][0],
            group(2, covering)[_name(case, 2)],
        )

    return of


def _name(case: Case, world: int) -> str:
    """Return a name; alone, a model is the same under all stages."""
    return case[0] if world == 1 else f"{case[0]}-{case[1]}"


def _config(directory: Path, case: Case, world: int) -> Any:
    name, stage = case
    model = directory / name
    if not model.exists():
        write_tiny(name, model)
    return rollout_config(
        directory,
        model=model,
        lora=MODELS[name],
        sampling={"maxTokens": 6, "temperature": 0.7, "topP": 0.95},
        processesPerWorker=world,
        zeroStage=stage,
    )


@pytest.mark.parametrize("case", CASES)
def test_two_processes_draw_what_one_does(case: Case, drawn: Drawn) -> None:
    alone, ranks = drawn(case)
    assert {**ranks[0].drawn, **ranks[1].drawn} == alone.drawn
    assert {**ranks[0].later, **ranks[1].later} == alone.later
    assert alone.later != alone.drawn  # an optimizer step lies between
    assert sum(rank.done for rank in ranks) == alone.done == sum(SAMPLES)
    assert min(rank.done for rank in ranks) > 0


@pytest.mark.parametrize("case", CASES)
def test_training_goes_on_alike(case: Case, drawn: Drawn) -> None:
    alone, ranks = drawn(case)
    for rank in ranks:
        assert rank.untouched
        assert rank.losses == pytest.approx(alone.losses, rel=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_a_stop_reaches_all(case: Case, drawn: Drawn) -> None:
    alone, ranks = drawn(case)
    assert all(told.stopped for told in (alone, *ranks))


@pytest.mark.parametrize("case", CASES)
def test_what_one_fails_with_ends_all(case: Case, drawn: Drawn) -> None:
    alone, ranks = drawn(case)
    assert alone.failed == [Reason.NON_FINITE_LOSS, 0]
    assert [told.failed for told in ranks] == [[Reason.NON_FINITE_LOSS, 1]] * 2
