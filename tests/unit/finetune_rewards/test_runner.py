"""The runner scores with what it read at its start, and tells what it can not use and why."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import Any

import psutil
import pytest

from finetune_contract.model import sha256_digest
from finetune_contract.reasons import Reason
from finetune_contract.rewards import HttpReward, RegexReward, Reward
from finetune_rewards.builtin import BUILTINS
from finetune_rewards.confine.process import interpreter_paths
from finetune_rewards.protocol import pack_samples
from finetune_rewards.runner import Runner
from finetune_rewards.samples import Item
from support.lacking_worker import lacking
from support.reward_runners import asked, python_reward, running, running_source, samples
from support.unconfined_worker import UNCONFINED

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


async def test_a_batch_whose_turn_does_not_come_has_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetune_rewards.station.TURN_SECONDS", 0.05)
    sleeps = "import time\ndef score(completions):\n    time.sleep(2)\n    return [1.0]"
    async with running_source(sleeps, tmp_path) as runner:
        first, second = await asyncio.gather(*(asked(runner, samples("a")) for _ in range(2)))
        assert first.items == [Item(1.0)]
        assert second.items == [Item(error="it was not this batch's turn within 0.05 s")]
        assert (await asked(runner, samples("a"))).items == [Item(1.0)]


async def test_memory_that_gives_out_leaves_nothing_behind(tmp_path: Path) -> None:
    source = """
kept = []

def score(completions, **kwargs):
    while completions[0] == "hoard":
        kept.append(bytearray(2**20))
    return [float(len(kept))] * len(completions)
"""
    async with running_source(source, tmp_path, memory_bytes=2**29) as runner:
        (item,) = (await asked(runner, samples("hoard"))).items
        assert item.error is not None
        assert item.error.startswith("MemoryError")
        assert (await asked(runner, samples("a"))).items == [Item(0.0)]


async def test_a_pattern_that_hangs_costs_its_own_completion_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("finetune_rewards.runner.BUILTIN_SECONDS", 3.0)
    rewards = [
        Reward(name="slow", regex=RegexReward(pattern="^(a+)+$")),
        Reward(name="fast", regex=RegexReward(pattern="a")),
    ]
    batch = samples("aaa", "a" * 60 + "!", "b", "aa")
    async with running(rewards) as runner:
        answers = await runner.score(pack_samples(batch), len(batch))
    one, hung, none, two = answers["slow"].items
    assert (one, none, two) == (Item(1.0), Item(0.0), Item(1.0))
    assert hung == Item(error="no answer within 3 s")
    assert [item.score for item in answers["fast"].items] == [1.0, 1.0, 0.0, 1.0]


async def test_patterns_that_hang_do_not_take_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finetune_rewards.runner.BUILTIN_SECONDS", 1.0)
    monkeypatch.setattr("finetune_rewards.runner.BUILTIN_BATCH_SECONDS", 0.5)
    batch = samples(*["a" * 60 + "!"] * 50)
    async with running([Reward(name="slow", regex=RegexReward(pattern="^(a+)+$"))]) as runner:
        answer = await asked(runner, batch)
    late = Item(error="the batch's other completions took all the time there is")
    assert answer.items == [Item(error="no answer within 1 s"), *[late] * 49]


async def test_patterns_that_are_slow_do_not_take_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("finetune_rewards.runner.BUILTIN_BATCH_SECONDS", 3.0)
    slow = "a" * 22 + "!"  # tenths of a second each
    async with running([Reward(name="slow", regex=RegexReward(pattern="^(a+)+$"))]) as runner:
        answer = await asked(runner, samples(*[slow] * 200))
        assert len(answer.items) == 200
        assert answer.items[0] == Item(0.0)
        assert answer.items[-1].score is None
        assert answer.items[-1].error
        assert (await asked(runner, samples("a"))).items == [Item(1.0)]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import nothing_like_it", "ModuleNotFoundError: No module named 'nothing_like_it'"),
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
        (item,) = (await asked(runner, samples("a"))).items
        assert item.score is None
        assert item.error is not None


async def test_a_source_that_is_not_there_is_told(tmp_path: Path) -> None:
    for sources in ({}, {"mine": tmp_path / "none.py"}):
        async with running([python_reward()], sources) as runner:
            problem = runner.describe()[0].problem
            assert problem is not None
            assert problem.reason is Reason.REWARD_INVALID
            assert "reward mine: its source reward.py can not be read" in problem.message
            assert (await asked(runner, samples("a"))).items[0].error == problem.message


async def test_rewards_of_others_are_passed_over() -> None:
    service = Reward(name="judge", http=HttpReward(url="http://judge/score"))
    async with running([service]) as runner:
        assert runner.describe() == []
        assert await runner.score(pack_samples(samples("a")), 1) == {}


@pytest.mark.parametrize(
    ("what", "named"), [("seccomp", "seccomp"), ("landlock", "Landlock (Linux 5.13)")]
)
async def test_a_kernel_that_lacks_something_is_refused_by_name(
    what: str, named: str, tmp_path: Path
) -> None:
    async with running_source(COUNTING, tmp_path, lacking(what)) as runner:
        problem = runner.describe()[0].problem
        assert problem is not None
        assert problem.reason is Reason.SANDBOX_UNAVAILABLE
        assert problem.message == f"reward mine: the kernel lacks {named}"
        assert (await asked(runner, samples("a"))).items == [Item(error=problem.message)]


@pytest.mark.parametrize(
    ("what", "reached"),
    [("seccomp", ["network"]), ("landlock", ["files"])],
)
async def test_code_that_is_trusted_runs_with_what_confinement_there_is(
    what: str, reached: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = """
import os, socket

def score(completions, **kwargs):
    return [float(works(one)) for one in completions]

def works(name):
    try:
        socket.socket() if name == "network" else os.listdir("/etc")
    except OSError:
        return False
    return True
"""
    async with running_source(source, tmp_path, lacking(what), allow_unconfined=True) as runner:
        assert runner.describe()[0].problem is None
        answer = await asked(runner, samples("network", "files"))
    assert [item.score for item in answer.items] == [
        float(name in reached) for name in ("network", "files")
    ]
    (warning,) = [r.message for r in caplog.records if r.levelno == logging.WARNING]
    assert warning.startswith("mine: runs without ")


async def test_every_builtin_scores_in_a_confined_worker() -> None:
    described: dict[str, dict[str, Any]] = {
        "math": {},
        "exact": {"pattern": "answer is (.*)"},
        "regex": {"pattern": "answer"},
        "choice": {"answer": "letter"},
        "tags": {"tags": ["b"]},
        "json_schema": {},
        "length": {"most": 9},
        "language": {"language": "en"},
        "repetition": {},
        "banned": {"phrases": ["nonsense"]},
        "reasoning_gym": {"task": "basic_arithmetic", "pattern": "answer is (.*)"},
    }
    assert set(described) == set(BUILTINS)
    rewards = [Reward.model_validate({"name": name, name: to}) for name, to in described.items()]
    entry = '{"question": "2+2", "answer": "4", "metadata": {}}'
    batch = samples("the answer is 4", answer="4", letter="A", entry=entry)
    async with running(rewards) as runner:
        assert [reward.problem for reward in runner.describe()] == [None] * len(rewards)
        answers = await runner.score(pack_samples(batch), 1)
    assert {name: answer.items[0].error for name, answer in answers.items()} == dict.fromkeys(
        described
    )
    assert {name for name, answer in answers.items() if answer.items[0].score == 1.0} >= {
        *("math", "exact", "regex", "length", "repetition", "banned", "reasoning_gym"),
    }


async def test_builtins_need_no_confinement() -> None:
    reward = Reward(name="re", regex=RegexReward(pattern="a"))
    async with running([reward], command=lacking("landlock")) as runner:
        assert (await asked(runner, samples("a"))).items == [Item(1.0)]


async def test_code_sees_neither_the_runners_environment_nor_its_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    caplog.set_level(logging.INFO)
    source = """
import os, sys

def score(completions, **kwargs):
    print("said", file=sys.stderr)
    print("printed", end="")
    assert "AWS_SECRET_ACCESS_KEY" not in os.environ and sys.stdin.read() == ""
    assert os.getcwd() == "/" and os.getsid(0) == os.getpid()
    return [float(len(set(map(hash, "abc"))))]
"""
    async with running_source(source, tmp_path) as runner:
        assert (await asked(runner, samples("a"))).items == [Item(3.0)]
    assert "mine: said" in caplog.messages
    assert "mine: printed" in caplog.messages


async def test_no_descriptor_of_the_runner_is_inherited(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("canary")
    descriptor = os.open(secret, os.O_RDONLY)
    os.set_inheritable(descriptor, True)
    source = """
import os

def score(completions, **kwargs):
    found = []
    for descriptor in range(3, 256):
        try:
            os.fstat(descriptor)
        except OSError:
            continue
        found.append(descriptor)
    return [float(len(found))]
"""
    try:
        async with running_source(source, tmp_path) as runner:
            assert (await asked(runner, samples("a"))).items == [Item(2.0)]  # to and from us
    finally:
        os.close(descriptor)


async def test_stopping_ends_a_batch_under_way(tmp_path: Path) -> None:
    path = tmp_path / "reward.py"
    path.write_text("import time\ndef score(completions):\n    time.sleep(600)")
    runner = Runner([python_reward(timeout_seconds=600)], {"mine": path})
    await runner.start()
    scoring = asyncio.create_task(asked(runner, samples("a")))
    await asyncio.sleep(0.2)
    await runner.stop()
    assert (await scoring).items[0].error


async def test_what_a_worker_started_ends_with_it(tmp_path: Path) -> None:
    source = """
import os, time

def score(completions):
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    return [float(child)]
"""
    async with running_source(source, tmp_path, UNCONFINED) as runner:
        (item,) = (await asked(runner, samples("a"))).items
        assert item.score is not None
        child = psutil.Process(int(item.score))
    gone, _ = psutil.wait_procs([child], timeout=30)
    assert gone or child.status() == psutil.STATUS_ZOMBIE


async def test_a_worker_has_bounds_for_all_that_it_may_use(tmp_path: Path) -> None:
    source = """
import ctypes, os, resource

def score(completions, **kwargs):
    limits = [resource.getrlimit(getattr(resource, "RLIMIT_" + name)) for name in completions]
    assert all(soft == hard for soft, hard in limits[:-1])
    return [float(soft) for soft, _ in limits]
"""
    names = ("AS", "CORE", "FSIZE", "MEMLOCK", "MSGQUEUE", "NOFILE", "CPU")
    async with running_source(source, tmp_path, memory_bytes=2**29, timeout_seconds=7) as runner:
        answer = await asked(runner, samples(*names))
    *limits, cpu = (item.score for item in answer.items)
    assert limits == [2.0**29, 0.0, 0.0, 0.0, 0.0, 256.0]
    cores = os.cpu_count() or 1
    assert cpu is not None
    assert 7 * cores <= cpu <= 7 * cores + 60  # and what it took to start


async def test_a_worker_of_root_keeps_none_of_its_powers_but_to_read(tmp_path: Path) -> None:
    source = """
import ctypes

def score(completions, **kwargs):
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()
    assert ctypes.CDLL(None).capget(header, sets) == 0
    return [float(one) for one in sets]
"""
    async with running_source(source, tmp_path) as runner:
        answer = await asked(runner, samples(*"abcdef"))
    effective, permitted, inheritable, *upper = (item.score for item in answer.items)
    assert {effective, permitted} <= {0.0, 4.0}  # CAP_DAC_READ_SEARCH
    assert [inheritable, *upper] == [0.0] * 4


def test_neither_the_root_of_all_nor_a_home_is_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.path", ["/", str(tmp_path), str(tmp_path / "none"), ""])
    readable = interpreter_paths()
    assert tmp_path in readable
    assert not {Path("/"), Path.home(), Path(), tmp_path / "none"} & set(readable)
    assert all(path.exists() for path in readable)
    assert len(readable) == len(set(readable))
