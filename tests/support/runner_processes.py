"""A runner of one function behind its socket, as a process or in this one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from finetune_rewards.runner.client import RunnerClient
from finetune_rewards.runner.isolated import Runner
from finetune_rewards.runner.server import Server
from support.reward_runners import python_reward, samples

SOURCE = """
import os

def score(completions, **kwargs):
    return [float(os.getppid())] * len(completions)
"""


@contextlib.contextmanager
def served(source: Path, *more: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Yield a runner process and its socket."""
    rewards = source.with_name("rewards.json")
    described = python_reward().model_dump(mode="json", by_alias=True, exclude_none=True)
    rewards.write_text(json.dumps([described]))
    socket = source.with_name("rewards.sock")
    command = [sys.executable, "-m", "finetune_rewards", "serve", "--rewards", str(rewards)]
    command += ["--socket", str(socket), "--source", f"mine={source}", *more]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        try:
            yield process, socket
        finally:
            process.kill()


async def runner_of(client: RunnerClient) -> int:
    """Return the runner's process id, as its worker tells."""
    (item,) = (await client.score(samples("a")))["mine"].items
    assert item.score is not None
    return int(item.score)


@contextlib.asynccontextmanager
async def served_here(runner: Runner, socket: Path) -> AsyncIterator[None]:
    """Have a runner serve at the socket while the block lasts."""
    stop = asyncio.Event()
    serving = asyncio.create_task(Server(runner).serve(socket, stop))
    try:
        yield
    finally:
        stop.set()
        await serving
