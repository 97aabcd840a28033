"""The runner scores with what it read at its start, and tells what it can not use and why."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from finetune_contract.model import sha256_digest
from finetune_contract.reasons import Reason
from finetune_contract.rewards import HttpReward, JsonSchemaReward, RegexReward, Reward
from finetune_rewards.runner.isolated import Runner, builtins_assignment
from finetune_rewards.runner.protocol import Problem, pack_samples
from finetune_rewards.runner.station import LOAD_REMEDY, Assignment, Station
from finetune_rewards.scores.answers import error
from finetune_rewards.scores.samples import Item, Samples
from support.rewards.runners import asked, forged, python_reward, running, running_source, samples

COUNTING = """
import os
seen = []

def score(completions, **kwargs):
    if completions[0] == "die":
        os._exit(1)
    seen.append(len(completions))
    return [float(len(seen))] * len(completions)
"""


async def test_a_source_is_read_once_however_often_workers_start(tmp_path: Path) -> None:
    async with running_source(COUNTING, tmp_path) as runner:
        assert runner.describe()[0].revision == sha256_digest(COUNTING.encode())
        (tmp_path / "reward.py").write_text("def score(completions):\n    return [9.0]")
        assert (await asked(runner, samples("a"))).items == [Item(1.0)]
        assert (await asked(runner, samples("a"))).items == [Item(2.0)]
        assert (await asked(runner, samples("die"))).items[0].error
        assert (await asked(runner, samples("a"))).items == [Item(1.0)]  # another worker
        assert runner.describe()[0].revision == sha256_digest(COUNTING.encode())


async def test_another_worker_is_there_before_the_next_batch(tmp_path: Path) -> None:
    others = children()  # of other tests, such as an S3 server
    async with running_source(COUNTING, tmp_path) as runner:
        (first,) = children() - others
        assert (await asked(runner, samples("die"))).items[0].error
        async with asyncio.timeout(60):
            while not (found := children() - others):  # noqa: ASYNC110 - nobody is told of a start
                await asyncio.sleep(0.05)
        assert found != {first}


def children() -> set[psutil.Process]:
    found = psutil.Process().children()
    return {child for child in found if child.status() != psutil.STATUS_ZOMBIE}


async def test_batches_of_several_ranks_take_turns(tmp_path: Path) -> None:
    async with running_source(COUNTING, tmp_path) as runner:
        answers = await asyncio.gather(*(asked(runner, samples("a", "b")) for _ in range(8)))
    scores = [answer.items[0].score for answer in answers]
    assert sorted(scores, key=float) == [float(n) for n in range(1, 9)]  # type: ignore[arg-type]


async def test_the_seconds_of_a_batch_are_its_own(tmp_path: Path) -> None:
    sleeps = "import time\ndef score(completions):\n    time.sleep(0.5)\n    return [1.0]"
    async with running_source(sleeps, tmp_path) as runner:
        begun = time.monotonic()
        answers = await asyncio.gather(*(asked(runner, samples("a")) for _ in range(2)))
        elapsed = time.monotonic() - begun
    assert sum(answer.seconds for answer in answers) <= elapsed
    assert min(answer.seconds for answer in answers) >= 0.5


@asynccontextmanager
async def builtins(*rewards: Reward, **seconds: float) -> AsyncIterator[Station]:
    """Yield the station of builtin rewards."""
    made = Station(builtins_assignment(rewards, **seconds))
    try:
        assert await made.start() is None
        yield made
    finally:
        await made.stop()


async def scored(station: Station, name: str, batch: Samples) -> list[Item]:
    return (await station.score(name, pack_samples(batch), len(batch))).items


async def test_a_refusal_is_told_however_long_it_is() -> None:
    definition = '{"$ref": "' + "x" * 10_000 + '"}'
    form = Reward(name="form", json_schema=JsonSchemaReward(definition=definition))
    problem = await Station(builtins_assignment([form])).start()
    assert problem is not None
    assert problem.message.startswith("reward form: definition refers to 'xxx")


SLOW = Reward(name="slow", regex=RegexReward(pattern="^(a+)+$"))


async def test_a_pattern_that_hangs_costs_its_own_completion_only() -> None:
    fast = Reward(name="fast", regex=RegexReward(pattern="a"))
    batch = samples("aaa", "a" * 60 + "!", "b", "aa")
    async with builtins(SLOW, fast, seconds=3.0) as station:
        one, hung, none, two = await scored(station, "slow", batch)
        others = await scored(station, "fast", batch)
    assert (one, none, two) == (Item(1.0), Item(0.0), Item(1.0))
    assert hung == Item(error="no answer within 3 s")
    assert [item.score for item in others] == [1.0, 1.0, 0.0, 1.0]


async def test_patterns_that_hang_do_not_take_for_ever() -> None:
    batch = samples(*["a" * 60 + "!"] * 50)
    async with builtins(SLOW, seconds=1.0, batch_seconds=0.5) as station:
        items = await scored(station, "slow", batch)
    late = Item(error="the batch's other completions took all the time there is")
    assert items == [Item(error="no answer within 1 s"), *[late] * 49]


async def test_patterns_that_are_slow_do_not_take_for_ever() -> None:
    slow = "a" * 22 + "!"  # tenths of a second each
    async with builtins(SLOW, batch_seconds=3.0) as station:
        items = await scored(station, "slow", samples(*[slow] * 200))
        assert len(items) == 200
        assert items[0] == Item(0.0)
        assert items[-1].score is None
        assert items[-1].error
        assert await scored(station, "slow", samples("a")) == [Item(1.0)]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (
            "import nothing_like_it",
            "ModuleNotFoundError: No module named 'nothing_like_it' (reward.py line 1); it must be "
            "in the trainer's image, and for a try beside finetune, not by pip install --user",
        ),
        ("import os; os._exit(4)", "it does not load: the process ended with exit code 4"),
        ("def other(): pass", "reward.py has no function score"),
        ("\udcff", "reward.py is not UTF-8"),
    ],
)
async def test_code_that_does_not_load_is_told_and_scores_nothing(
    source: str, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "reward.py"
    path.write_text(source, errors="surrogateescape")
    async with running([python_reward()], {"mine": path}) as runner:
        problem = runner.describe()[0].problem
        assert problem is not None
        assert problem.reason is Reason.REWARD_INVALID
        assert problem.message.startswith(f"reward mine: {said}")
        assert "slow node" not in problem.message
        (item,) = (await asked(runner, samples("a"))).items
        assert item.score is None
        assert item.error is not None


@pytest.mark.parametrize(
    "hello",
    [
        {},
        {"ready": False},
        {"ready": False, "reason": "SandboxUnavailable"},
        {"ready": False, "reason": "Preempted", "message": 5},
        {"ready": True},
        {"ready": True, "lacks": 5},
        {"ready": "yes", "lacks": []},
        {"ready": [], "message": "x"},
    ],
)
async def test_a_forged_first_word_is_a_fault_of_the_code(
    hello: dict[str, object], tmp_path: Path
) -> None:
    async with running_source(forged(hello), tmp_path) as runner:
        told = "reward mine: it does not load: its process said something else"
        problem = Problem(Reason.REWARD_INVALID, told)
        assert runner.describe()[0].problem == problem
        assert (await asked(runner, samples("a"))).items == [Item(error=told)]


async def test_a_worker_can_not_choose_the_reason_that_ends_a_run(tmp_path: Path) -> None:
    hello = {"ready": False, "reason": "Preempted", "message": "no\n\x1b[31m"}
    async with running_source(forged(hello), tmp_path) as runner:
        problem = Problem(Reason.REWARD_INVALID, "reward mine: no [31m")
        assert runner.describe()[0].problem == problem


async def test_what_a_worker_says_that_it_lacks_is_told_in_our_own_words(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hello = {"ready": True, "lacks": ["x" * 1000, "seccomp", "seccomp"]}
    async with running_source(forged(hello), tmp_path):
        warnings = [r.message for r in caplog.records if r.levelno == logging.WARNING]
    assert warnings == ["mine: runs without seccomp"]


SILENT = (sys.executable, "-c", "import time; time.sleep(600)")


@pytest.mark.parametrize("total", [None, 20.0])  # of a user's code, and of builtins
async def test_code_that_loads_too_slowly_may_do_another_time(total: float | None) -> None:
    load = {"memoryBytes": 2**30}
    station = Station(Assignment("mine", load, b"", 20.0, total, load_seconds=0.3), SILENT)
    problem = await station.start()
    assert problem is not None
    assert problem.reason is Reason.REWARD_UNAVAILABLE
    told = "it does not load: no answer within 0.3 s"
    assert problem.message == (
        f"a builtin reward: {told}" if total else f"reward mine: {told}; {LOAD_REMEDY}"
    )
    [item] = await scored(station, "mine", samples("a"))
    assert item == error(problem.message)
    await station.stop()


async def test_a_machine_that_starts_no_process_is_told_of(tmp_path: Path) -> None:
    async with running_source(COUNTING, tmp_path, (str(tmp_path / "none"),)) as runner:
        problem = runner.describe()[0].problem
        assert problem is not None
        assert problem.reason is Reason.REWARD_UNAVAILABLE
        said = "reward mine: it does not load: no process can be started: No such file or directory"
        assert problem.message.startswith(said)
        (item,) = (await asked(runner, samples("a"))).items
        assert item.error is not None
        assert item.error.startswith(said)


async def test_a_source_that_is_not_there_is_told(tmp_path: Path) -> None:
    for sources in ({}, {"mine": tmp_path / "none.py"}):
        async with running([python_reward()], sources) as runner:
            problem = runner.describe()[0].problem
            assert problem is not None
            assert problem.reason is Reason.REWARD_INVALID
            why = ": No such file or directory" if sources else ""
            assert problem.message == f"reward mine: its source reward.py can not be read{why}"
            assert (await asked(runner, samples("a"))).items[0].error == problem.message


async def test_rewards_of_others_are_passed_over() -> None:
    service = Reward(name="judge", http=HttpReward(url="http://judge/score"))
    async with running([service]) as runner:
        assert runner.describe() == []
        assert await runner.score(pack_samples(samples("a")), 1) == {}


async def test_stopping_ends_a_batch_under_way(tmp_path: Path) -> None:
    path = tmp_path / "reward.py"
    path.write_text("import time\ndef score(completions):\n    time.sleep(600)")
    runner = Runner([python_reward(timeout_seconds=600)], {"mine": path})
    await runner.start()
    scoring = asyncio.create_task(asked(runner, samples("a")))
    await asyncio.sleep(0.2)
    await runner.stop()
    assert (await scoring).items[0].error
