"""Killed at any step, a run goes on from its checkpoint to the adapter it would have made."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from finetune_contract.reasons import Reason, exit_code
from finetune_contract.rewards import Reward
from finetune_rewards.runner.child import runner_child
from support.grpo.configs import SHORT, VOWEL, prompts
from support.models.tiny_llama import sums, write_rows
from support.models.tiny_models import write_tiny
from support.trainer.attempts import (
    KILL,
    PROMPTS,
    SOCKET,
    STEPS,
    TERM,
    Runs,
    Setting,
    began_at,
    digest,
    finished,
    killed_and_resumed,
)
from support.trainer.fork_server import Fault, ForkServer

MODELS = ("llama", "qwen3-moe", "deepseek-v3")
ONE, ALL = (1,), (0, 1)
KINDS = ((KILL, ONE), (KILL, ALL), (TERM, ONE), (TERM, ALL))
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def runs(server: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    directory = tmp_path_factory.mktemp("runs")
    for model in MODELS:
        write_tiny(model, directory / model)
    write_rows(directory / "train.jsonl", sums(33))
    write_rows(directory / PROMPTS, prompts(33))
    rewards = [Reward.model_validate(reward) for reward in (VOWEL, SHORT)]
    with runner_child(rewards, {}, directory / SOCKET):
        yield Runs(server, directory)


@pytest.mark.parametrize(
    ("setting", "kinds"),
    [
        (Setting("llama", stage=2, dropout=0.1), (KINDS[0], KINDS[3], KINDS[1])),
        (Setting("llama", stage=3, dropout=0.0), (KINDS[2], KINDS[1], KINDS[0])),
        pytest.param(
            Setting("deepseek-v3", stage=3, dropout=0.0),
            (KINDS[2], KINDS[1], KINDS[0]),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["llama-zero2-dropout", "llama-zero3", "deepseek-v3-zero3"],
)
def test_three_kills_in_a_row_change_nothing(
    runs: Runs, setting: Setting, kinds: tuple[Any, ...]
) -> None:
    faults = [
        Fault(int(number), step, ranks, micro_batch=step % 2)
        for step, (number, ranks) in zip((3, 6, 10), kinds, strict=True)
    ]
    killed_and_resumed(runs, setting, faults)


def test_completions_in_use_outlive_kills(runs: Runs) -> None:
    """Buffers serve steps 1 to 3, 4 to 6, ...: begun anew, in use, and being drawn."""
    setting = Setting(dropout=0.1, batch=16, iterations=3)
    kills = [
        Fault(int(KILL), 4, ONE, micro_batch=1),
        Fault(int(TERM), 5, ALL, micro_batch=1),
        Fault(int(KILL), 9, ALL, at="rollout"),
    ]
    killed_and_resumed(runs, setting, kills)


def test_kills_between_buffers_change_nothing(runs: Runs) -> None:
    """A buffer serves one step: each attempt draws its first as the one before would have."""
    setting = Setting(dropout=0.1, batch=16, iterations=1)
    kills = [Fault(int(KILL), 5, ONE, at="rollout"), Fault(int(TERM), 8, ALL, micro_batch=1)]
    killed_and_resumed(runs, setting, kills)


def test_a_rank_with_slow_rewards_is_waited_for(runs: Runs) -> None:
    setting, job = Setting(dropout=0.1, batch=16, iterations=3), runs.job()
    ends = runs.attempt(setting, job, 1, Fault(0, 0, ONE, at="slow score"))
    assert digest(finished(ends, job, 1)) == digest(runs.whole(setting))


def test_a_stop_waits_for_no_reward(runs: Runs) -> None:
    """One rank is told to stop, in a score that never comes; what it had learned is saved."""
    setting = Setting(dropout=0.1, batch=16, iterations=3)
    killed_and_resumed(runs, setting, [Fault(int(TERM), 3, ONE, at="score")])


def test_replaced_groups_and_the_reference_outlive_kills(runs: Runs) -> None:
    setting = Setting(stage=2, dropout=0.0, batch=16, iterations=4, beta=0.1, resamples=1)
    kills = [Fault(int(TERM), 3, ALL, micro_batch=0), Fault(int(KILL), 8, ALL, micro_batch=1)]
    killed_and_resumed(runs, setting, kills)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("at", ["train", "rollout", "score"])
@pytest.mark.parametrize("step", range(1, STEPS))
def test_grpo_killed_at_every_step(
    runs: Runs, step: int, at: str, kind: tuple[int, tuple[int, ...]]
) -> None:
    number, ranks = kind
    setting = Setting(dropout=0.1, batch=16, iterations=3)
    if at != "train":
        step -= step % 3
    fault = Fault(int(number), step, ranks, micro_batch=step % 2, at=at)
    killed_and_resumed(runs, setting, [fault])


@pytest.mark.slow
@pytest.mark.parametrize(
    "setting",
    [
        Setting("deepseek-v3", stage=3, dropout=0.0, batch=16, iterations=6),
        Setting("qwen3-moe", stage=1, dropout=0.1, batch=16, iterations=2, beta=0.1),
        Setting(stage=0, batch=16, iterations=1, resamples=2),
        Setting(world=1, batch=16, iterations=3, beta=0.1, resamples=1),
        Setting(world=3, batch=24, iterations=6, stage=3, beta=0.1),
    ],
    ids=str,
)
def test_grpo_killed_under_every_setting(runs: Runs, setting: Setting) -> None:
    everyone = tuple(range(setting.world))
    killed_and_resumed(runs, setting, [Fault(int(TERM), 5, everyone, micro_batch=1)])


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_killed_at_every_step(runs: Runs, step: int, kind: tuple[int, tuple[int, ...]]) -> None:
    number, ranks = kind
    fault = Fault(int(number), step, ranks, micro_batch=step % 2)
    killed_and_resumed(runs, Setting("llama", stage=2, dropout=0.1), [fault])


def pairwise() -> list[tuple[Setting, Fault]]:
    """Return cases in which every two values of model, stage, dropout and kind meet."""
    cases = []
    for stage, kind in product(range(4), range(4)):
        setting = Setting(MODELS[(stage + kind) % 3], stage, 0.1 * ((kind // 2 + stage) % 2))
        number, ranks = KINDS[kind]
        step = 1 + (5 * stage + 3 * kind) % STEPS
        cases.append((setting, Fault(int(number), step, ranks, micro_batch=step % 2)))
    return cases


@pytest.mark.slow
@pytest.mark.parametrize(("setting", "fault"), pairwise(), ids=str)
def test_killed_under_every_setting(runs: Runs, setting: Setting, fault: Fault) -> None:
    killed_and_resumed(runs, setting, [fault])


@pytest.mark.slow
@pytest.mark.parametrize(
    "setting",
    [
        Setting(stage=2, offload=("Optimizer",)),
        Setting(stage=3, offload=("Optimizer", "Parameters")),
        Setting(stage=2, optimizer="SGD"),
        Setting(stage=3, optimizer="SGD"),
        Setting(world=1),
        Setting(world=3, stage=3, batch=12),
    ],
    ids=str,
)
def test_resumed_with_every_optimizer(runs: Runs, setting: Setting) -> None:
    everyone = tuple(range(setting.world))
    killed_and_resumed(runs, setting, [Fault(int(TERM), 6, everyone, micro_batch=1)])


def tensors(path: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(path)


@pytest.mark.parametrize("iterations", [0, pytest.param(4, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param((2, 2), (3, 3), id="2-to-3-zero2-to-zero3", marks=pytest.mark.slow),
        pytest.param((1, 0), (2, 2), id="1-to-2", marks=pytest.mark.slow),
        pytest.param((2, 3), (1, 0), id="2-to-1-zero3-to-zero0"),
        pytest.param((2, 2), (3, 2), id="2-to-3", marks=pytest.mark.slow),
        pytest.param((2, 2), (2, 3), id="zero2-to-zero3", marks=pytest.mark.slow),
        pytest.param((3, 3), (2, 1), id="3-to-2-zero3-to-zero1", marks=pytest.mark.slow),
    ],
)
def test_another_layout_goes_on(
    runs: Runs, before: tuple[int, int], after: tuple[int, int], iterations: int
) -> None:
    first, second = (
        Setting(
            world=world,
            stage=stage,
            dropout=0.0,
            batch=24 if iterations else 12,
            iterations=iterations,
        )
        for world, stage in (before, after)
    )
    job = runs.job()
    everyone = tuple(range(first.world))
    ends = runs.attempt(first, job, 1, Fault(int(TERM), 6, everyone, micro_batch=1))
    assert {end.code for end in ends} == {exit_code(Reason.INTERRUPTED)}
    ends = runs.attempt(second, job, 2)
    assert began_at(ends) in (5, 6)
    found, expected = tensors(finished(ends, job, 2)), tensors(runs.whole(first))
    assert found.keys() == expected.keys()
    assert max((found[name] - expected[name]).abs().max() for name in found) <= TOLERANCE
