"""A runner as a child: another takes its place when it ends, and none outlives its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from finetune_rewards.runner.child import runner_child
from finetune_rewards.runner.client import RunnerClient
from finetune_rewards.scores.errors import RewardChanged
from support.rewards.runners import SOURCE, python_reward, runner_of, samples


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "reward.py"
    path.write_text(SOURCE)
    return path


async def test_a_client_waits_for_a_runner_that_is_killed_and_comes_back(source: Path) -> None:
    socket = source.with_name("rewards.sock")
    with runner_child([python_reward()], {"mine": source}, socket):
        client = RunnerClient(socket)
        first = await runner_of(client)
        os.kill(first, signal.SIGKILL)
        second = await runner_of(client)
        assert second != first
    assert not psutil.pid_exists(second)


async def test_code_that_changed_under_a_run_scores_nothing(source: Path) -> None:
    socket = source.with_name("rewards.sock")
    with runner_child([python_reward()], {"mine": source}, socket):
        client = RunnerClient(socket)
        await client.describe()
        first = await runner_of(client)
        os.kill(first, signal.SIGKILL)
        assert await runner_of(client) != first  # the same code goes on
        source.write_text(SOURCE + "# edited")
        os.kill(await runner_of(client), signal.SIGKILL)
        with pytest.raises(RewardChanged, match=r"other code than this attempt .*: reward mine;"):
            await client.score(samples("a"))
        assert await runner_of(RunnerClient(socket)) > 0


PARENT = """
import sys, time
from pathlib import Path
from finetune_rewards.runner.child import runner_child
from support.rewards.runners import python_reward

directory = Path(sys.argv[1])
sources = {"mine": directory / "reward.py"}
with runner_child([python_reward()], sources, directory / "rewards.sock"):
    time.sleep(600)
"""


def parent_of_a_runner(directory: Path) -> subprocess.Popen[bytes]:
    tests = str(Path(__file__).parents[3])
    environment = {**os.environ, "PYTHONPATH": tests, "TOKEN": "canary"}
    return subprocess.Popen([sys.executable, "-c", PARENT, str(directory)], env=environment)


async def test_a_child_ends_with_its_parent_however_that_ends(source: Path) -> None:
    with parent_of_a_runner(source.parent) as parent:
        runner = await runner_of(RunnerClient(source.with_name("rewards.sock")))
        ended = [psutil.Process(runner), *psutil.Process(runner).children()]
        assert len(ended) == 2
        assert "TOKEN" not in ended[0].environ()
        assert os.getsid(runner) == runner
        parent.kill()
    psutil.wait_procs(ended, timeout=30)
    assert not any(process.is_running() for process in ended)
