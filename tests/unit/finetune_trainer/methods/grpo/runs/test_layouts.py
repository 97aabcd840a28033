"""Under another layout a whole run of GRPO draws, scores, replaces and learns the same."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from finetune_contract.rewards import Reward
from finetune_rewards.runner.child import runner_child
from support.grpo.configs import SHORT, VOWEL, grpo_config, prompts
from support.models.tiny_llama import write_model, write_rows
from support.storage.publications import run_directory
from support.trainer.fork_server import ForkServer

TOLERANCE = 5e-5
STEPS = 6
ALONE = {"microBatchSize": 8, "zeroStage": 0}
APART = {"microBatchSize": 2, "zeroStage": 2, "processesPerWorker": 2}
METHODS: dict[str, dict[str, Any]] = {
    "one step a buffer": {"iterations": 1, "loss": "GRPO"},
    "several, groups replaced, KL": {"iterations": 3, "maxResamples": 2, "beta": 0.1},
}
Run = Callable[[str, bool], Path]


@pytest.fixture(scope="module")
def run(server: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Return a function that does a run, with one process or two, and returns its artifact."""
    directory = tmp_path_factory.mktemp("layouts")
    write_model(directory / "model")
    write_rows(directory / "prompts.jsonl", prompts(33))

    @cache
    def trained(method: str, apart: bool) -> Path:
        job = directory / f"{method}-{apart}"
        config = grpo_config(
            directory,
            grpo=METHODS[method],
            data=directory / "prompts.jsonl",
            output=job.as_uri(),
            socket=directory / "rewards.sock",
            training={"maxSteps": STEPS, "learningRate": 5e-3},
            scratchDir=str(job / "scratch"),
            **(APART if apart else ALONE),
        )
        ends = server.run(config, job / "attempt")
        assert [end.code for end in ends] == [0] * len(ends), ends[0].log
        return run_directory(job, 1) / "artifact"

    rewards = [Reward.model_validate(reward) for reward in (VOWEL, SHORT)]
    with runner_child(rewards, {}, directory / "rewards.sock"):
        yield trained


def told(artifact: Path) -> list[dict[str, float]]:
    """Return what each step told of completions and rewards, but for the time it took."""
    lines = (artifact / "metrics.jsonl").read_text().splitlines()
    return [
        {
            name: value
            for name, value in json.loads(line).items()
            if name.startswith(("rollout/", "reward/")) and not name.endswith("seconds")
        }
        for line in lines
    ]


@pytest.mark.parametrize("method", METHODS)
def test_two_processes_do_what_one_does(method: str, run: Run) -> None:
    alone, apart = run(method, False), run(method, True)
    steps = told(alone)
    assert len(steps) == STEPS
    assert steps == told(apart)
    assert len({step["rollout/tokens_mean"] for step in steps}) > 1  # they tell samples apart
    assert (sum(step["rollout/replaced_groups"] for step in steps) > 0) == (
        "maxResamples" in METHODS[method]
    )
    found, expected = (load_file(a / "adapter_model.safetensors") for a in (apart, alone))
    assert found.keys() == expected.keys()
    assert max((found[name] - expected[name]).abs().max() for name in found) <= TOLERANCE
    assert all(tensor.abs().max() > 10 * TOLERANCE for tensor in found.values())
