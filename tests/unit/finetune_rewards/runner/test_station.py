"""A worker that ends, lies, or is told to end costs what it was asked then, and nothing more."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from finetune_contract.reasons import Reason
from finetune_rewards.runner.isolated import Runner
from finetune_rewards.runner.protocol import Problem, pack_samples
from finetune_rewards.runner.station import MOST_SECONDS, Assignment, Station
from finetune_rewards.scores.samples import Item
from support.rewards.runners import asked, python_reward, running_source, samples

LOAD = {
    "load": "python",
    "name": "mine",
    "file": "reward.py",
    "function": "score",
    "memoryBytes": 2**30,
    "allowUnconfined": False,
}
DIES = """
import os

def score(completions, **kwargs):
    if completions[0] == "now":
        os._exit(1)
    return [1.0] * len(completions)
"""


@pytest.fixture
def others() -> set[int]:
    """Return the processes that were there before."""
    return {child.pid for child in psutil.Process().children()}


def workers(others: set[int]) -> list[psutil.Process]:
    found = [child for child in psutil.Process().children() if child.pid not in others]
    return [child for child in found if child.status() != psutil.STATUS_ZOMBIE]


@asynccontextmanager
async def station(
    source: str, seconds: float, total_seconds: float | None
) -> AsyncIterator[Station]:
    """Yield one whose worker answers completion by completion, unless there is no total."""
    made = Station(Assignment("mine", LOAD, source.encode(), seconds, total_seconds))
    try:
        assert await made.start() is None
        yield made
    finally:
        await made.stop()


async def test_a_worker_that_died_while_nobody_asked_costs_nothing(
    tmp_path: Path, others: set[int]
) -> None:
    gc.collect()  # what other tests have left
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", ResourceWarning)
        async with running_source(DIES, tmp_path) as runner:
            for _ in range(2):
                assert (await asked(runner, samples("a"))).items == [Item(1.0)]
                (worker,) = workers(others)
                worker.kill()
                await asyncio.to_thread(psutil.wait_procs, [worker], 30)
                assert (await asked(runner, samples("a", "b"))).items == [Item(1.0)] * 2
        await asyncio.sleep(0)
        gc.collect()
    assert [str(one.message) for one in warned] == []  # nothing of a worker stays open


async def test_a_worker_that_dies_before_it_has_read_what_is_asked_is_named(
    tmp_path: Path, others: set[int]
) -> None:
    async with running_source(DIES, tmp_path) as runner:
        (worker,) = workers(others)
        while worker.status() != psutil.STATUS_STOPPED:  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0.01)
        scoring = asyncio.create_task(asked(runner, samples("x" * 2**22)))
        while worker.status() == psutil.STATUS_STOPPED:  # noqa: ASYNC110
            await asyncio.sleep(0)  # it is sent no more than a buffer holds
        worker.kill()
        told = Item(error="the process was ended by SIGKILL")
        assert (await scoring).items == [told]
        assert (await asked(runner, samples("a"))).items == [Item(1.0)]


async def test_a_batch_and_a_replacement_start_one_worker_between_them(
    tmp_path: Path, others: set[int]
) -> None:
    async with running_source(DIES, tmp_path) as runner:
        for _ in range(2):
            assert (await asked(runner, samples("now"))).items[0].error
            assert (await asked(runner, samples("a"))).items == [Item(1.0)]
            assert len(workers(others)) == 1
    assert workers(others) == []


async def test_a_station_that_was_stopped_starts_no_worker(
    tmp_path: Path, others: set[int]
) -> None:
    async with running_source(DIES, tmp_path) as runner:
        assert (await asked(runner, samples("now"))).items[0].error
        await asyncio.sleep(0.05)  # a replacement is being started
        await runner.stop()
        assert workers(others) == []
        told = Item(error="the runner was told to stop")
        assert (await asked(runner, samples("a", "b"))).items == [told] * 2
        await asyncio.sleep(0.05)
        assert workers(others) == []


async def test_a_stop_while_a_batch_is_scored_leaves_no_worker(
    tmp_path: Path, others: set[int]
) -> None:
    source = "import time\ndef score(completions):\n    time.sleep(600)"
    (tmp_path / "reward.py").write_text(source)
    runner = Runner([python_reward()], {"mine": tmp_path / "reward.py"})
    await runner.start()
    scoring = asyncio.create_task(asked(runner, samples("a")))
    await asyncio.sleep(0.2)
    await runner.stop()
    assert (await scoring).items[0].error
    await asyncio.sleep(0.2)
    assert workers(others) == []


async def test_memory_that_gives_out_on_one_completion_costs_no_other() -> None:
    source = """
import os

def score(completions):
    if completions[0] == "x":
        raise MemoryError
    return [float(os.getpid())]
"""
    async with station(source, 20.0, 100.0) as made:
        answer = await made.score("mine", pack_samples(samples(*"axbc")), 4)
    first, gave_out, *rest = answer.items
    assert gave_out == Item(error="MemoryError")
    assert first.score is not None
    assert rest[0].score == rest[1].score is not None
    assert rest[0].score != first.score  # another worker's


@pytest.mark.parametrize(
    ("seconds", "total"), [(20.0, MOST_SECONDS - 0.05), (MOST_SECONDS - 0.05, None)]
)
async def test_a_batch_leaves_those_before_it_the_time_that_it_may_take(
    seconds: float, total: float | None
) -> None:
    source = "import time\ndef score(completions):\n    time.sleep(1)\n    return [1.0]"
    batch = pack_samples(samples("a"))
    async with station(source, seconds, total) as made:
        first, second = await asyncio.gather(*(made.score("mine", batch, 1) for _ in range(2)))
        assert first.items == [Item(1.0)]
        assert second.items == [Item(error="it was not this batch's turn within 0.05 s")]
        assert (await made.score("mine", batch, 1)).items == [Item(1.0)]


FORGES = """
import json, os, struct

def send(header, body, said=None):
    header = json.dumps(header).encode()
    frame = struct.pack(">II", len(header), len(body) if said is None else said) + header + body
    for descriptor in range(3, 256):
        try:
            os.write(descriptor, frame)
        except OSError:
            pass

def score(completions, **kwargs):
    if completions[0] == "twice":
        send({"id": 0}, b"[0.5]")
    if completions[0] in ("NaN", "true"):
        send({"id": 0}, f"[{completions[0]}]".encode())
    if completions[0] == "deep":
        deep = []
        for _ in range(900):
            deep = [deep]
        send({"id": deep}, b"[0.5]")
    if completions[0] == "long":
        send({"id": 0}, b"", 2**20)
    return [1.0]
"""


async def test_an_answer_too_many_is_not_taken_for_the_next(tmp_path: Path) -> None:
    async with running_source(FORGES, tmp_path) as runner:
        assert (await asked(runner, samples("twice"))).items == [Item(0.5)]
        told = Item(error="the answer is not to what was asked")
        assert (await asked(runner, samples("a"))).items == [told]
        assert (await asked(runner, samples("a"))).items == [Item(1.0)]


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("NaN", "the answer has NaN, which is not JSON"),
        ("true", "an item is neither a finite number, null nor a text"),
        ("deep", "a message's header nests deeper than 32"),
        ("long", "a message of 1048585 bytes is too large"),
    ],
)
async def test_what_the_function_itself_sends_is_checked(
    what: str, told: str, tmp_path: Path
) -> None:
    async with running_source(FORGES, tmp_path) as runner:
        assert (await asked(runner, samples(what))).items == [Item(error=told)]
        assert (await asked(runner, samples("a"))).items == [Item(1.0)]


async def test_a_first_word_with_more_to_it_is_refused(tmp_path: Path) -> None:
    hello = FORGES + 'send({"ready": True, "lacks": []}, b"x")\n'
    async with running_source(hello, tmp_path) as runner:
        told = "reward mine: it does not load: a message of 29 bytes is too large"
        assert runner.describe()[0].problem == Problem(Reason.REWARD_INVALID, told)


async def test_a_function_goes_by_the_name_that_was_given(tmp_path: Path) -> None:
    source = "def judge(completions):\n    return [2.0]"
    async with running_source(source, tmp_path, function="judge") as runner:
        assert (await asked(runner, samples("a"))).items == [Item(2.0)]


def test_a_source_that_is_gone_has_changed(tmp_path: Path) -> None:
    (tmp_path / "b.py").write_text("")
    rewards = [python_reward("a"), python_reward("b")]
    runner = Runner(rewards, {"a": tmp_path / "a.py", "b": tmp_path / "b.py"})
    before = {"a": "sha256:1", "b": runner.describe()[1].revision or ""}
    assert runner.changed(before) == ["a"]
