"""Whatever a user's reward does, no completion gets a score for it, nothing is reached that must
not be, and the next batch is scored.

Each attack on something outside is run once more in a worker that does not confine itself, where
it has to work: else the test would prove nothing.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

from finetune_rewards.runner.worker_process import COMMAND, LOG_BYTES
from finetune_rewards.scores.samples import Answer
from support.rewards.attacks import ATTACK, REACHING, SOURCE, world
from support.rewards.runners import asked, running_source, samples
from support.rewards.unconfined_worker import UNCONFINED

HARMLESS = samples("a", "b", "c", "d", target={})
SILENCE_SECONDS = 3.0  # after which a function that hangs is killed
SILENT = "^no answer within 3 s$"

# What is wrong with how a function answers, and what is said of it.
MISBEHAVING = {
    "raises": ("raise ValueError('no')", r"^ValueError: no \(reward.py line 3\)$"),
    "raises what is no Exception": ("raise KeyboardInterrupt", "^KeyboardInterrupt"),
    "sys.exit": ("import sys; sys.exit(0)", "^SystemExit: 0"),
    "os._exit": ("import os; os._exit(0)", "^the process ended with exit code 0$"),
    "NaN": ("return [float('nan')] * 4", "the score is nan"),
    "Inf": ("return [float('-inf')] * 4", "the score is -inf"),
    "too large": ("return [10**400] * 4", "large|OverflowError"),
    "too few": ("return [0.0] * 3", "returned 3 scores for 4 completions"),
    "too many": ("return [0.0] * 5", "returned 5 scores for 4 completions"),
    "no list": ("return 0.0", "float instead of a list"),
    "nothing": ("return None", "NoneType instead of a list"),
    "a generator": ("return (0.0 for c in completions)", "generator instead of a list"),
    "texts": ("return ['0'] * 4", "the score is text"),
    "10 MB": ("return ['x' * 10_000_000] * 4", "the score is text"),
    "10 MB of scores": ("return [0.0] * 10_000_000", "returned 10000000 scores"),
    "too deep": ("def f(): f()\n        f()", "^RecursionError"),
    "more memory": ("x = []\n        while True: x.append(bytearray(2**20))", "^MemoryError"),
    "crashes": ("import ctypes; ctypes.string_at(0)", "^the process was ended by SIGSEGV$"),
    "breaks builtins": ("import builtins; del builtins.len, builtins.isinstance", "."),
    "closes everything": ("import os; os.closerange(0, 256)", "^the process"),
    "closes everything and stays": (
        "import os, time; os.closerange(0, 256); time.sleep(600)",
        "^the process closed its channel$",
    ),
    "garbage everywhere": (
        "import os\n        for fd in range(3, 256):\n"
        "            try: os.write(fd, b'\\xff' * 4096)\n            except OSError: pass",
        "too large$",
    ),
    "zeros for an answer": (
        "import os\n        for fd in range(3, 256):\n"
        "            try: os.write(fd, b'\\0\\0\\0\\x02\\0\\0\\0\\x0c{}[0, 0, 0, 0]')\n"
        "            except OSError: pass",
        "^the answer is not to what was asked$",
    ),
    "a header without end": (
        "import os\n        for fd in range(3, 256):\n"
        "            try: os.write(fd, b'\\0\\0\\x0f\\xff\\0\\0\\0\\0' + b'[' * 4095)\n"
        "            except OSError: pass",
        "nests deeper than 32$",
    ),
    "a flood of answers": (
        "import os\n        while True:\n            for fd in range(3, 256):\n"
        "                try: os.write(fd, b'x' * 65536)\n                except OSError: pass",
        "too large$",
    ),
    "hangs": ("while True: pass", SILENT),
    "sleeps": ("import time; time.sleep(600)", SILENT),
    "stops itself": (
        "import signal; signal.raise_signal(signal.SIGSTOP)",
        SILENT,
    ),
    "reads what is asked next": (
        "import os\n        for fd in range(3, 256):\n"
        "            try: os.read(fd, 1)\n            except OSError: pass",
        SILENT,
    ),
}
FUNCTION = """
def score(completions, **kwargs):
    if completions[0] == "attack":
        {body}
    return [1.0] * len(completions)
"""


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a path that is short enough for the addresses of Unix sockets."""
    return tmp_path_factory.mktemp("c")


def assert_no_score(answer: Answer, count: int = 4) -> None:
    assert len(answer.items) == count
    assert all(item.score is None and item.error for item in answer.items), answer


def assert_scored(answer: Answer, count: int = 4) -> None:
    assert [item.score for item in answer.items] == [1.0] * count, answer


@pytest.mark.parametrize("name", MISBEHAVING)
async def test_misbehaviour_is_an_error_and_the_next_batch_is_scored(
    name: str, tmp_path: Path
) -> None:
    body, said = MISBEHAVING[name]
    source = FUNCTION.lstrip().format(body=body)
    seconds = SILENCE_SECONDS if said is SILENT else 60.0
    async with running_source(source, tmp_path, timeout_seconds=seconds) as runner:
        answer = await asked(runner, samples(ATTACK, "b", "c", "d"))
        assert_no_score(answer)
        for item in answer.items:
            assert item.error is not None
            assert len(item.error) <= 200
            assert re.search(said, item.error), item.error
        assert_scored(await asked(runner, HARMLESS))


async def test_nothing_is_reached(tmp_path: Path) -> None:
    async with running_source(SOURCE, tmp_path) as runner:
        for name in REACHING:
            with world(tmp_path / name) as around:
                attack = samples(ATTACK, name, "c", "d", target=around.target)
                assert_no_score(await asked(runner, attack))
                around.assert_untouched()
                assert_scored(await asked(runner, HARMLESS))


async def test_without_confinement_all_is_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetune_rewards.runner.vitals.MOST_THREADS", 10_000)
    monkeypatch.setattr("finetune_rewards.runner.vitals.UNCOUNTED_BYTES", 2**40)
    async with running_source(SOURCE, tmp_path, UNCONFINED) as runner:
        for name in REACHING:
            with world(tmp_path / name) as around:
                attack = samples(ATTACK, name, "c", "d", target=around.target)
                assert_scored(await asked(runner, attack))


@pytest.mark.parametrize(("command", "runs"), [(COMMAND, False), (UNCONFINED, True)])
async def test_no_other_program_is_run(
    command: tuple[str, ...], runs: bool, tmp_path: Path
) -> None:
    directory = tmp_path / "ran"
    body = f"import os; os.execv('/bin/mkdir', ['mkdir', {str(directory)!r}])"
    async with running_source(FUNCTION.format(body=body), tmp_path, command) as runner:
        assert_no_score(await asked(runner, samples(ATTACK, "b", "c", "d")))
        assert directory.exists() is runs
        assert_scored(await asked(runner, HARMLESS))


async def test_the_runner_can_not_be_killed(tmp_path: Path) -> None:
    source = FUNCTION.format(body="import os; os.kill(os.getppid(), 9)")
    async with running_source(source, tmp_path) as runner:
        assert_no_score(await asked(runner, samples(ATTACK, "b", "c", "d")))
        assert_scored(await asked(runner, HARMLESS))


async def test_a_worker_without_its_modules_is_replaced_at_last(tmp_path: Path) -> None:
    source = FUNCTION.format(body="import sys; sys.modules.clear(); import json")
    async with running_source(source, tmp_path) as runner:
        answer = await asked(runner, samples(ATTACK, "b", "c", "d"))
        assert {item.score for item in answer.items} in ({1.0}, {None})
        assert_scored(await asked(runner, HARMLESS))


async def test_a_flood_of_output_is_cut_and_costs_no_score(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    source = FUNCTION.format(body="import os; print('first')\n        print('x' * 50_000_000)")
    source += "\ndef score(completions, *, flood=score, **kwargs):\n"
    source += "    found = flood(completions, **kwargs)\n    print('last')\n    return found\n"
    async with running_source(source, tmp_path) as runner:
        assert_scored(await asked(runner, samples(ATTACK, "b", "c", "d")))
        assert_scored(await asked(runner, HARMLESS))
        assert_scored(await asked(runner, HARMLESS))
    assert "mine: first" in caplog.messages
    # What ends within the bound is told, and so are the batches after.
    assert [message for message in caplog.messages if message.endswith("last")][1:] == [
        "mine: last"
    ]
    assert sum(len(message) for message in caplog.messages) < 2 * LOG_BYTES
    dropped = len("first\n" + "x" * 50_000_000 + "\nlast\n") - LOG_BYTES
    told = [message for message in caplog.messages if "were dropped" in message]
    assert told == [f"mine: {dropped} more bytes of output were dropped"]


async def test_what_is_useful_still_works(tmp_path: Path) -> None:
    source = """
import asyncio, concurrent.futures, decimal, hashlib, json, re, ssl, tempfile, threading, zoneinfo
import numpy, sympy

async def doubled(value):
    await asyncio.sleep(0)
    return 2 * value

async def score(completions, **kwargs):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        lengths = list(pool.map(len, completions))
    both = await asyncio.gather(*map(doubled, lengths))
    assert numpy.ones((300, 300)).dot(numpy.ones((300, 300)))[0, 0] == 300
    assert sympy.simplify("x + x - 2*x") == 0
    open("/dev/null", "w").write("x")
    return numpy.array(both, dtype=numpy.float32) / 2
"""
    async with running_source(source, tmp_path) as runner:
        assert runner.describe()[0].problem is None
        assert_scored(await asked(runner, HARMLESS))
        assert_scored(await asked(runner, HARMLESS))
