"""A whole run with a reward that only misbehaves and a service that is down time and again.

Rewards with errors are left out, and the others' weights are scaled up. So the run must be, bit for
bit, the one with the good rewards alone: any score for an error would make it another.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from finetune_contract.rewards import Reward
from finetune_rewards.runner.child import runner_child
from support.grpo.configs import VOWEL, grpo_config, prompts
from support.models.tiny_llama import write_model, write_rows
from support.services.judge import Document, Judge, good, judge_server
from support.storage.publications import run_directory
from support.trainer.fork_server import ForkServer

WILD = """
import os, socket, threading, time

def score(completions, trainer_state, **kwargs):
    wrong = [
        lambda: 1 / 0,
        lambda: [float("nan")] * len(completions),
        lambda: time.sleep(600),
        lambda: [float("inf")] * len(completions),
        lambda: [0.0] * (len(completions) + 1),
        lambda: os._exit(0),
        lambda: ["0"] * len(completions),
        lambda: os.fork(),
        lambda: socket.create_connection(("127.0.0.1", 1)),
        lambda: [0.0 for _ in open("/etc/passwd")],
        lambda: open("/tmp/reward", "w"),
        lambda: [bytearray(2**30) for _ in range(64)],
    ]
    return wrong[trainer_state.global_step % len(wrong)]()
"""
STEPS = 12
WORLD = 2
# The sum of weights is alike, and no sum or quotient is rounded.
GOOD = {"vowel": "2", "judge": "2"}
WORSE = {"vowel": "1", "judge": "1", "wild": "2"}


async def frail(document: Document, number: int) -> web.StreamResponse:
    if number % 5 == 0 or 40 <= number < 50:  # now and then, and for a while at all
        return web.Response(status=503)
    if number % 7 == 0:
        return web.Response(text="[0, 0", status=500)
    return await good(document, number)


@pytest.fixture
def judge() -> Iterator[Judge]:
    with judge_server() as found:
        yield found


def ran(
    server: ForkServer, directory: Path, judge: Judge, name: str, weights: dict[str, str]
) -> Path:
    """Return the artifact of a run with rewards of these weights."""
    code = directory / "wild.py"
    code.write_text(WILD)
    documents: dict[str, dict[str, Any]] = {
        "vowel": VOWEL,
        "judge": {"name": "judge", "http": {"url": judge.url, "retries": 10}},
        "wild": {
            "name": "wild",
            "python": {"configMap": "rewards", "key": "wild.py", "timeoutSeconds": 2},
        },
    }
    rewards = [{**documents[name], "weight": float(weight)} for name, weight in weights.items()]
    isolated = [Reward.model_validate(one) for one in rewards if one["name"] != "judge"]
    job, socket = directory / name, directory / f"{name}.sock"
    config = grpo_config(
        directory,
        grpo={"rewards": rewards, "scaleRewards": "None"},
        data=directory / "prompts.jsonl",
        output=job.as_uri(),
        socket=socket,
        training={"maxSteps": STEPS, "learningRate": 5e-3},
        scratchDir=str(job / "scratch"),
        microBatchSize=4,
        zeroStage=2,
        processesPerWorker=WORLD,
    )
    sources = {"wild": code} if "wild" in weights else {}
    with runner_child(isolated, sources, socket):
        ends = server.run(config, job / "attempt")
    assert [end.code for end in ends] == [0] * WORLD, ends[0].log
    return run_directory(job, 1) / "artifact"


def test_what_always_fails_changes_nothing(
    server: ForkServer, tmp_path: Path, judge: Judge
) -> None:
    write_model(tmp_path / "model")
    write_rows(tmp_path / "prompts.jsonl", prompts(33))
    calm = ran(server, tmp_path, judge, "calm", GOOD)
    judge.behave, before = frail, len(judge.documents)
    wild = ran(server, tmp_path, judge, "wild", WORSE)
    steps = [json.loads(line) for line in (wild / "metrics.jsonl").read_text().splitlines()]
    assert [step["reward/wild/errors"] for step in steps] == [16] * STEPS
    assert [step["reward/judge/errors"] for step in steps] == [0] * STEPS
    assert all(step.get("reward/wild/mean") is None for step in steps)
    assert len(judge.documents) > 2 * before, "some were sent again"
    adapters = [(run / "adapter_model.safetensors").read_bytes() for run in (calm, wild)]
    assert adapters[0] == adapters[1]
    assert any(step["reward/std"] > 0 for step in steps), "there was something to learn"
