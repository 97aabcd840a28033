"""Code that burns all cores does so only while it is asked, and with no more weight than others."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import psutil

from finetune_rewards.runner.isolated import Runner
from finetune_rewards.runner.protocol import pack_samples
from finetune_rewards.runner.vitals import nice_of
from finetune_rewards.scores.samples import Item
from support.rewards.runners import asked, python_reward, running_source, samples

THREADS = 110
# Outside Python's lock, so that all of them run at once. A call ends with a nice value.
BURNS = f"""
import hashlib, os, threading, time

begin = threading.Event()

def burn():
    begin.wait()
    while True:
        hashlib.pbkdf2_hmac("sha256", b"", b"", 1_000_000)

for _ in range({THREADS}):
    threading.Thread(target=burn, daemon=True).start()

def score(completions):
    begin.set()
    while os.getpriority(os.PRIO_PROCESS, 0) < int(completions[0]):
        time.sleep(0.01)
    return [1.0]
"""
INNOCENT = "def score(completions):\n    return [sum(range(10**6)) * 0.0]"
LATEST = 60.0


def started(others: set[psutil.Process]) -> list[psutil.Process]:
    return sorted(set(psutil.Process().children()) - others, key=lambda child: child.pid)


async def stopped(worker: psutil.Process) -> None:
    async with asyncio.timeout(LATEST):
        while worker.status() != psutil.STATUS_STOPPED:  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0.01)


async def test_code_rests_until_it_is_asked(tmp_path: Path) -> None:
    others = set(psutil.Process().children())
    async with running_source(BURNS, tmp_path) as runner:
        (worker,) = started(others)
        await stopped(worker)
        for _ in range(2):
            assert (await asked(runner, samples("-20"))).items == [Item(1.0)]
            await stopped(worker)


async def test_many_threads_give_way_to_a_neighbour(tmp_path: Path) -> None:
    (tmp_path / "burns.py").write_text(BURNS)
    (tmp_path / "innocent.py").write_text(INNOCENT)
    rewards = [python_reward(name, timeout_seconds=LATEST) for name in ("burns", "innocent")]
    sources = {reward.name: tmp_path / f"{reward.name}.py" for reward in rewards}
    others = set(psutil.Process().children())
    runner = Runner(rewards, sources)
    try:
        await runner.start()
        least = nice_of(THREADS // 2)
        answers = await runner.score(pack_samples(samples(str(least))), 1)
        assert answers["burns"].items == [Item(1.0)]
        assert answers["innocent"].items == [Item(0.0)]
        burning, neighbour = sorted(started(others), key=lambda one: -one.num_threads())
        assert min(nices(burning)) >= least
        assert nices(neighbour) == [os.getpriority(os.PRIO_PROCESS, 0)]
    finally:
        await runner.stop()


def nices(worker: psutil.Process) -> list[int]:
    tasks = Path(f"/proc/{worker.pid}/task").iterdir()
    return [os.getpriority(os.PRIO_PROCESS, int(task.name)) for task in tasks]
