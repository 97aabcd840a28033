"""A pod has one reward runner: the one beside it, or one that its launcher starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil
import pytest

from finetune_contract.runconfig import RunConfig
from finetune_rewards.runner.client import RunnerClient
from finetune_trainer.methods.grpo.rewards.runner import (
    launched_runner,
    own_socket_path,
    socket_path,
)
from finetune_trainer.process.errors import Failure
from support.rewards.runners import samples
from support.trainer.runs import run_config

PYTHON = {"name": "mine", "python": {"configMap": "rewards", "key": "reward.py"}}
SERVICE = {"name": "judge", "http": {"url": "http://judge/score"}}
SOURCE = """
import os

def score(completions, **kwargs):
    return [float(os.getppid())] * len(completions)
"""


def grpo_config(directory: Path, *rewards: dict[str, Any], **layout: Any) -> RunConfig:
    grpo = {"rewards": list(rewards), "sampling": {"maxTokens": 8}}
    return run_config(directory, grpo=grpo, **layout)


async def test_the_launcher_starts_one_that_ranks_find(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "reward.py").write_text(SOURCE)
    runner = {"sources": {"mine": str(tmp_path / "reward.py")}}
    config = grpo_config(tmp_path, PYTHON, SERVICE, rewardRunner=runner)
    monkeypatch.setenv("GROUP_RANK", "1")
    with launched_runner(config, 1):
        client = RunnerClient(own_socket_path(config.layout))
        assert [identity.name for identity in await client.describe()] == ["mine"]
        (item,) = (await client.score(samples("a")))["mine"].items
        assert item.score is not None
        assert psutil.pid_exists(int(item.score))
    assert not psutil.pid_exists(int(item.score))


@pytest.mark.parametrize(
    ("rewards", "runner"),
    [([SERVICE], {}), ([PYTHON], {"socket": "/run/rewards/rewards.sock"})],
)
def test_none_is_started_without_need(
    rewards: list[dict[str, Any]], runner: dict[str, str], tmp_path: Path
) -> None:
    config = grpo_config(tmp_path, *rewards, rewardRunner=runner)
    before = set(psutil.Process().children())
    with launched_runner(config, 0):
        assert set(psutil.Process().children()) == before


def test_the_socket_is_the_layouts_or_one_per_node(tmp_path: Path) -> None:
    beside = run_config(tmp_path, rewardRunner={"socket": "/run/rewards/rewards.sock"}).layout
    assert socket_path(beside, 3) == Path("/run/rewards/rewards.sock")
    own = run_config(tmp_path, scratchDir="/scratch").layout
    assert {socket_path(own, 0), socket_path(own, 1)} == {
        Path("/scratch/rewards-0.sock"),
        Path("/scratch/rewards-1.sock"),
    }


def test_a_long_scratch_directory_has_a_short_address_of_its_own(tmp_path: Path) -> None:
    layouts = [run_config(tmp_path, scratchDir=f"/{c * 120}").layout for c in "ab"]
    paths = {socket_path(layout, node) for layout in layouts for node in (0, 1)}
    assert len(paths) == 4
    assert all(len(str(path)) <= 100 for path in paths)


def test_a_short_address_lies_where_no_other_user_can_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    layout = run_config(tmp_path, scratchDir=f"/{'a' * 120}").layout
    own = socket_path(layout, 0).parent
    assert own.parent == tmp_path
    assert own.stat().st_mode & 0o777 == 0o700
    own.chmod(0o755)
    with pytest.raises(Failure, match=rf"{own} must be a directory that only this user can enter"):
        socket_path(layout, 0)
    own.rmdir()
    own.symlink_to(tmp_path)
    with pytest.raises(Failure, match="only this user"):
        socket_path(layout, 0)
