"""Whoever waits for a runner that can not begin to serve is told why, at once."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from finetune_contract.reasons import Reason, exit_code
from finetune_contract.rewards import DIGEST_VARIABLE
from finetune_rewards.runner.child import runner_child
from finetune_rewards.runner.client import RunnerClient
from finetune_rewards.runner.isolated import Runner
from finetune_rewards.runner.protocol import Problem
from finetune_rewards.runner.server import Server
from finetune_rewards.runner.start_failure import start_failure, tell_start_failure
from finetune_rewards.scores.errors import RewardChanged, RewardInvalid, RewardUnavailable
from support.rewards.runners import SOURCE, python_reward, runner_of, served, served_here


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "reward.py"
    path.write_text(SOURCE)
    return path


def wait_for(socket: Path) -> None:
    while not socket.exists():
        time.sleep(0.02)


class Faulty(Runner):
    async def start(self) -> None:
        raise LookupError("no such thing")


async def test_a_runner_that_can_not_start_ends(source: Path) -> None:
    with pytest.raises(LookupError):
        await Server(Faulty([], {})).serve(source.with_name("rewards.sock"), asyncio.Event())


FAULTY = """
import sys
from finetune_rewards import __main__
from finetune_rewards.runner import isolated as runner

async def start(self):
    raise LookupError("no such thing")

runner.Runner.start = start
sys.exit(__main__.main())
"""


def test_whoever_waits_for_a_runner_that_can_not_start_is_told_why(source: Path) -> None:
    socket, rewards = source.with_name("rewards.sock"), source.with_name("rewards.json")
    rewards.write_text("[]")
    command = [sys.executable, "-c", FAULTY, "serve", "--rewards", str(rewards)]
    assert subprocess.run([*command, "--socket", str(socket)]).returncode == 1
    said = "^the reward runner can not go on: LookupError: no such thing$"
    with pytest.raises(RewardUnavailable, match=said):
        asyncio.run(RunnerClient(socket).describe())
    rewards.write_text('[{"name": "x", "weight": "much"}]')
    subprocess.run([sys.executable, "-m", "finetune_rewards", *command[3:], "--socket", socket])
    with pytest.raises(RewardInvalid, match=r"^the reward runner can not read .*rewards\.json: "):
        asyncio.run(RunnerClient(socket).describe())


def test_a_runner_whose_rewards_someone_swapped_ends_and_says_so(source: Path) -> None:
    socket, rewards = source.with_name("rewards.sock"), source.with_name("rewards.json")
    rewards.write_text("[]")
    told = {**os.environ, DIGEST_VARIABLE: "sha256:of-others"}
    command = [sys.executable, "-m", "finetune_rewards", "serve", "--rewards", str(rewards)]
    ended = subprocess.run([*command, "--socket", str(socket)], env=told)
    assert ended.returncode == exit_code(Reason.INPUT_CHANGED)
    with pytest.raises(RewardChanged, match="is not what the operator wrote"):
        asyncio.run(RunnerClient(socket).describe())


async def test_a_child_that_ends_at_once_is_told_of(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    socket = source.with_name("rewards.sock")
    socket.touch()  # of a runner that was before
    monkeypatch.setattr(sys, "executable", "/bin/false")
    told = pytest.raises(RewardUnavailable, match="ended with exit code 1 at its start; its log")
    with runner_child([python_reward()], {"mine": source}, socket), told:
        await RunnerClient(socket).describe()


async def test_what_kept_a_runner_that_was_before_is_forgotten(source: Path) -> None:
    socket = source.with_name("rewards.sock")
    tell_start_failure(socket, Problem(Reason.REWARD_INVALID, "of before"))
    with served(source) as (process, _):
        await asyncio.to_thread(wait_for, socket)
        assert await runner_of(RunnerClient(socket)) == process.pid
        assert start_failure(socket) is None
    tell_start_failure(socket, Problem(Reason.REWARD_INVALID, "of before"))
    with runner_child([python_reward()], {"mine": source}, socket):
        await runner_of(RunnerClient(socket))


async def test_a_runner_that_has_answered_is_waited_for_whatever_keeps_it(source: Path) -> None:
    socket = source.with_name("rewards.sock")
    client = RunnerClient(socket, away_seconds=0.3)
    async with served_here(Runner([python_reward()], {"mine": source}), socket):
        await client.describe()
    tell_start_failure(socket, Problem(Reason.REWARD_INVALID, "no room"))
    with pytest.raises(RewardUnavailable, match=re.escape("has been away for 0.3 s: no room")):
        await client.describe()
