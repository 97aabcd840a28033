"""Runners of rewards: in this process, or as one behind its socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from finetune_contract.rewards import PythonReward, Reward
from finetune_rewards.runner.client import RunnerClient
from finetune_rewards.runner.isolated import Runner
from finetune_rewards.runner.protocol import pack_samples
from finetune_rewards.runner.server import Server
from finetune_rewards.runner.worker_process import COMMAND
from finetune_rewards.scores.samples import Answer, Samples


def python_reward(name: str = "mine", **settings: Any) -> Reward:
    """Return a reward whose source is `reward.py`."""
    source = PythonReward(config_map="rewards", key="reward.py", **settings)
    return Reward(name=name, python=source)


def samples(*completions: str, **columns: Any) -> Samples:
    """Return one sample per completion, with the same value of each column."""
    count = len(completions)
    return Samples(
        ["2+2="] * count,
        list(completions),
        [[1, 2]] * count,
        {name: [value] * count for name, value in columns.items()},
        3,
    )


FORGED = """
import json, os, struct

said = json.dumps(HELLO).encode()
for descriptor in range(3, 256):
    try:
        os.write(descriptor, struct.pack(">II", len(said), 0) + said)
    except OSError:
        pass
"""


def forged(hello: dict[str, Any]) -> str:
    """Return code that says, while it is loaded, what its worker is to say first."""
    return FORGED.replace("HELLO", repr(hello))


@asynccontextmanager
async def running(
    rewards: Sequence[Reward],
    sources: dict[str, Path] | None = None,
    command: Sequence[str] = COMMAND,
) -> AsyncIterator[Runner]:
    """Yield a runner whose workers have loaded."""
    runner = Runner(rewards, sources or {}, command)
    try:
        await runner.start()
        yield runner
    finally:
        await runner.stop()


@asynccontextmanager
async def running_source(
    source: str, directory: Path, command: Sequence[str] = COMMAND, **settings: Any
) -> AsyncIterator[Runner]:
    """Yield a runner of one function, by the name `mine`."""
    path = directory / "reward.py"
    path.write_text(source)
    async with running([python_reward(**settings)], {"mine": path}, command) as runner:
        yield runner


async def asked(runner: Runner, batch: Samples) -> Answer:
    """Return the answer of the runner's only reward."""
    (answer,) = (await runner.score(pack_samples(batch), len(batch))).values()
    return answer


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
