"""The process of a worker as it is started: what it sees of its surroundings, and its limits."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from finetune_contract.rewards import RegexReward, Reward
from finetune_rewards.runner.worker_process import COMMAND, LOG_BYTES, WorkerProcess
from finetune_rewards.scores.samples import Item
from support.rewards.runners import asked, running, running_source, samples

SEVERAL = """
import sys

def score(completions, **kwargs):
    return [float(value) for value in VALUES]
"""


async def values(what: str, directory: Path, count: int, **settings: object) -> list[float | None]:
    """Return the numbers that an expression has in a worker."""
    source = SEVERAL.replace("VALUES", what)
    async with running_source(source, directory, **settings) as runner:
        answer = await asked(runner, samples(*["a"] * count))
    assert not any(item.error for item in answer.items), answer
    return [item.score for item in answer.items]


async def test_neither_users_packages_nor_the_directory_are_searched(tmp_path: Path) -> None:
    flags = "(sys.flags.no_user_site, sys.flags.safe_path, sys.flags.dont_write_bytecode)"
    assert await values(flags, tmp_path, 3) == [1.0, 1.0, 1.0]


async def test_hashes_are_alike_in_every_run(tmp_path: Path) -> None:
    once, again = [await values("[hash('seed') % 2**31]", tmp_path, 1) for _ in range(2)]
    assert once == again


async def test_libraries_compute_in_one_thread(tmp_path: Path) -> None:
    source = """
import numpy

def score(completions):
    return [float(numpy.ones((300, 300)).dot(numpy.ones((300, 300)))[0, 0])]
"""
    others = set(psutil.Process().children())
    async with running_source(source, tmp_path) as runner:
        assert (await asked(runner, samples("a"))).items == [Item(300.0)]
        (worker,) = set(psutil.Process().children()) - others
        assert worker.num_threads() == 1


async def test_a_user_without_a_name_or_home_of_its_own_is_enough(tmp_path: Path) -> None:
    """The user of a pod has no entry in passwd; libraries look for a place to write to."""
    source = """
import pwd

def unknown(uid):
    raise KeyError(uid)

pwd.getpwuid = unknown
import getpass, pathlib
import reasoning_gym

def score(completions):
    return [float(bool(getpass.getuser()) and pathlib.Path.home().is_absolute())]
"""
    async with running_source(source, tmp_path) as runner:
        assert (await asked(runner, samples("a"))).items == [Item(1.0)]


LIMITED = """
import resource, sys
from finetune_rewards.runner import worker

resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
resource.setrlimit(resource.RLIMIT_SIGPENDING, (30, 30))
sys.argv[1:] = sys.argv[-1:]
worker.main()
"""


async def test_limits_that_are_lower_already_stay(tmp_path: Path) -> None:
    source = """
import resource

def score(completions):
    kinds = (resource.RLIMIT_NOFILE, resource.RLIMIT_SIGPENDING)
    return [float(resource.getrlimit(kind)[1]) for kind in kinds]
"""
    command = (sys.executable, "-c", LIMITED)
    async with running_source(source, tmp_path, command, timeout_seconds=600) as runner:
        assert runner.describe()[0].problem is None
        answer = await asked(runner, samples("a", "b"))
    assert [item.score for item in answer.items] == [100.0, 30.0]


async def test_what_is_printed_is_told_line_by_line_without_control_characters(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    source = """
import os, time

def score(completions):
    os.write(2, b"one ")
    time.sleep(0.2)
    os.write(2, b"line\\n\\x1b[31m\\xffred \\nlast")
    return [1.0]
"""
    async with running_source(source, tmp_path) as runner:
        await asked(runner, samples("a"))
        await asyncio.sleep(0.1)
    assert caplog.messages == ["mine: one line", "mine:  [31m\ufffdred", "mine: last"]


async def test_what_was_dropped_of_the_last_batch_is_told_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = f"def score(completions):\n    print('x' * {LOG_BYTES + 9})\n    return [1.0]"
    async with running_source(source, tmp_path) as runner:
        await asked(runner, samples("a"))
        await asyncio.sleep(0.1)
    assert caplog.messages == ["mine: 10 more bytes of output were dropped"]


async def test_a_line_without_end_is_told_in_parts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    part = LOG_BYTES // 2 + 1
    source = f"def score(completions):\n    print('x' * {part}, end='')\n    return [1.0]"
    async with running_source(source, tmp_path) as runner:
        for _ in range(3):
            await asked(runner, samples("a"))
            await asyncio.sleep(0.1)
    assert [len(message) for message in caplog.messages] == [len("mine: ") + 2 * part, 6 + part]


async def test_a_start_that_is_cancelled_leaves_no_process() -> None:
    others = set(psutil.Process().children())
    deaf = (sys.executable, "-c", "import time; time.sleep(600)")
    starting = asyncio.create_task(WorkerProcess.started("mine", deaf, 2**30))
    await asyncio.sleep(0)  # the process is there; only the start knows of it yet
    (process,) = set(psutil.Process().children()) - others
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    await asyncio.to_thread(process.wait, 30)


def test_a_worker_whose_parent_is_gone_already_ends_itself() -> None:
    command = [*COMMAND, str(os.getpid() + 1)]
    assert subprocess.run(command, stdin=subprocess.DEVNULL).returncode == -signal.SIGKILL


async def test_the_worker_of_builtins_is_confined_as_far_as_the_kernel_can() -> None:
    others = set(psutil.Process().children())
    async with running([Reward(name="re", regex=RegexReward(pattern="a"))]) as runner:
        assert (await asked(runner, samples("a"))).items == [Item(1.0)]
        (worker,) = set(psutil.Process().children()) - others
        status = Path(f"/proc/{worker.pid}/status").read_text()
        assert worker.rlimit(psutil.RLIMIT_FSIZE) == (0, 0)
    assert "NoNewPrivs:\t1" in status
    assert "Seccomp:\t2" in status
