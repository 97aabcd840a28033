"""The runner as a process: who may ask, what happens when it goes, and when its parent does."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from finetune_contract.artifact import RewardIdentity
from finetune_contract.model import sha256_digest
from finetune_contract.reasons import Reason, exit_code
from finetune_rewards.runner import frames
from finetune_rewards.runner.client import RunnerClient
from finetune_rewards.runner.isolated import Runner
from finetune_rewards.runner.protocol import VERSION
from finetune_rewards.scores.errors import (
    RewardError,
    RewardInvalid,
    RewardUnavailable,
    SandboxUnavailable,
)
from support.rewards.lacking_worker import lacking
from support.rewards.runners import SOURCE, python_reward, runner_of, samples, served, served_here

HANGS = """
import signal, time

signal.signal(signal.SIGTERM, signal.SIG_IGN)

def score(completions):
    time.sleep(600)
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "reward.py"
    path.write_text(SOURCE)
    return path


def workers(runner: int) -> list[psutil.Process]:
    return psutil.Process(runner).children()


async def test_a_runner_describes_scores_and_stops_when_told(source: Path) -> None:
    with served(source) as (process, socket):
        client = RunnerClient(socket)
        digest = sha256_digest(SOURCE.encode())
        assert await client.describe() == (RewardIdentity(name="mine", revision=digest),)
        assert len((await client.score(samples("a", "b", "c")))["mine"].items) == 3
        assert await runner_of(client) == process.pid
        assert stat.S_IMODE(socket.stat().st_mode) == 0o600
        started = workers(process.pid)
        assert len(started) == 1
        process.terminate()
        assert process.wait() == 0
        assert not any(worker.is_running() for worker in started)


async def test_a_runner_told_to_stop_does_not_wait_for_a_batch(source: Path) -> None:
    source.write_text(HANGS)
    with served(source) as (process, socket):
        client = RunnerClient(socket, away_seconds=0.0)
        await client_ready(socket)
        scoring = asyncio.create_task(client.score(samples("a")))
        await asyncio.sleep(0.2)
        process.terminate()
        assert await asyncio.to_thread(process.wait) == 0
        with contextlib.suppress(RewardUnavailable):
            assert (await scoring)["mine"].items[0].error


async def client_ready(socket: Path) -> None:
    await RunnerClient(socket).rewards()


async def test_workers_end_with_a_runner_that_is_killed(source: Path) -> None:
    source.write_text(HANGS)
    with served(source) as (process, socket):
        await client_ready(socket)
        client = RunnerClient(socket, away_seconds=0.0)
        started = workers(process.pid)
        assert started
        scoring = asyncio.create_task(client.score(samples("a")))
        await asyncio.sleep(0.5)
        process.kill()
        with pytest.raises(RewardUnavailable):
            await scoring
        process.wait()
        psutil.wait_procs(started, timeout=30)
        assert not any(worker.is_running() for worker in started)


async def test_a_runner_lives_as_long_as_its_parents_pipe(source: Path) -> None:
    with served(source, "--until-eof") as (process, socket):
        await client_ready(socket)
        assert process.poll() is None
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait() == 0


async def test_another_runner_takes_the_socket_of_one_that_was_killed(source: Path) -> None:
    with served(source) as (process, socket):
        first = await runner_of(RunnerClient(socket))
        process.kill()
        process.wait()
        assert socket.exists()
        with served(source) as (process, socket):
            assert await runner_of(RunnerClient(socket)) == process.pid != first


async def test_a_client_of_another_version_is_told_so(source: Path) -> None:
    socket = source.with_name("rewards.sock")
    async with served_here(Runner([python_reward()], {"mine": source}), socket):
        await client_ready(socket)
        reader, writer = await asyncio.open_unix_connection(socket)
        for asked, said in (
            ({"version": 1, "ask": "describe"}, "this runner speaks version 2, not 1"),
            ({"version": VERSION, "ask": "dance"}, "asked for neither describe nor score"),
            ({"version": 0, "ask": "describe"}, "this runner speaks version 2, not 0"),
            ({"ask": "describe"}, "this runner speaks version 2, not None"),
            ({"version": VERSION, "ask": "score"}, "asked for neither describe nor score"),
            (
                {"version": VERSION, "ask": "score", "count": "1", "revisions": {}},
                "asked for neither describe nor score",
            ),
            (
                {"version": VERSION, "ask": "score", "count": 1, "revisions": []},
                "asked for neither describe nor score",
            ),
        ):
            writer.write(frames.encode(asked))
            assert (await frames.read(reader))[0] == {"error": said}
        writer.close()


async def test_garbage_ends_its_own_connection_only(
    source: Path, caplog: pytest.LogCaptureFixture
) -> None:
    socket = source.with_name("rewards.sock")
    async with served_here(Runner([python_reward()], {"mine": source}), socket):
        await client_ready(socket)
        reader, writer = await asyncio.open_unix_connection(socket)
        writer.write(b"\xff" * 64)
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()
        assert "a client was sent away: a message of 8589934590 bytes is too large" in caplog.text
        assert await runner_of(RunnerClient(socket)) == os.getpid()


@pytest.mark.parametrize(
    ("text", "command", "expected"),
    [
        ("def score(:", None, RewardInvalid),
        (SOURCE, lacking("seccomp"), SandboxUnavailable),
    ],
)
async def test_what_can_not_be_used_is_raised_by_its_kind(
    text: str,
    command: tuple[str, ...] | None,
    expected: type[RewardError],
    source: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    source.write_text(text)
    socket = source.with_name("rewards.sock")
    runner = Runner([python_reward()], {"mine": source}, *([command] if command else []))
    async with served_here(runner, socket):
        with pytest.raises(expected, match=r"^reward mine: ") as caught:
            await RunnerClient(socket).describe()
    assert f"mine: {expected.reason} {caught.value}" in caplog.messages


async def test_a_server_that_was_told_to_stop_leaves_nothing(
    source: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    socket, others = source.with_name("rewards.sock"), set(workers(os.getpid()))
    async with served_here(Runner([python_reward()], {"mine": source}), socket):
        digest = (await RunnerClient(socket).describe())[0].revision
        assert f"mine is ready {digest}" in caplog.messages
        assert len(set(workers(os.getpid())) - others) == 1
        _, writer = await asyncio.open_unix_connection(socket)
        writer.write(frames.encode({"version": VERSION, "ask": "describe"}) * 2)
        writer.transport.abort()  # it waits for no answer
        assert await runner_of(RunnerClient(socket)) == os.getpid()
    assert set(workers(os.getpid())) <= others
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_unix_connection(socket)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_server_is_stopped_before_its_workers_have_loaded(source: Path) -> None:
    source.write_text("import time; time.sleep(600)")
    others = set(workers(os.getpid()))
    async with served_here(
        Runner([python_reward()], {"mine": source}), source.with_name("rewards.sock")
    ):
        async with asyncio.timeout(60):
            while set(workers(os.getpid())) <= others:  # noqa: ASYNC110 - nobody is told of a start
                await asyncio.sleep(0.02)
    assert set(workers(os.getpid())) <= others


async def test_nobody_else_may_ask_and_other_files_are_as_open_as_before(source: Path) -> None:
    socket, later = source.with_name("rewards.sock"), source.with_name("later")
    mask = os.umask(0o022)
    try:
        async with served_here(Runner([], {}), socket):
            await client_ready(socket)
            later.touch()
    finally:
        os.umask(mask)
    assert stat.S_IMODE(socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(later.stat().st_mode) == 0o644


async def test_a_runner_that_stays_away_or_silent_is_unavailable(source: Path) -> None:
    socket = source.with_name("rewards.sock")
    with pytest.raises(RewardUnavailable, match=r"away for 0\.3 s: .* \(python\.memory\)"):
        await RunnerClient(socket, away_seconds=0.3).describe()
    source.write_text(HANGS)
    async with served_here(Runner([python_reward()], {"mine": source}), socket):
        await client_ready(socket)
        with pytest.raises(RewardUnavailable, match=re.escape("gave no answer within 0.3 s")):
            await RunnerClient(socket, answer_seconds=0.3).score(samples("a"))


def test_rewards_that_can_not_be_read_are_refused(tmp_path: Path) -> None:
    (tmp_path / "rewards.json").write_text('[{"name": "x", "weight": "much"}]')
    command = [sys.executable, "-m", "finetune_rewards", "serve", "--rewards"]
    for path in (tmp_path / "rewards.json", tmp_path / "none.json"):
        status = subprocess.run(
            [*command, str(path), "--socket", tmp_path / "s"], timeout=60
        ).returncode
        assert status == exit_code(Reason.INVALID_RUN_CONFIG)
