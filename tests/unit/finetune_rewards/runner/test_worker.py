"""What the worker of a reward may use, and what confines it."""

from __future__ import annotations

import logging
import os
import re
import sysconfig
from pathlib import Path
from typing import Any

import psutil
import pytest

from finetune_contract.reasons import Reason
from finetune_contract.rewards import RegexReward, Reward
from finetune_rewards.builtin import BUILTINS
from finetune_rewards.confine.process import Lacking, confine, interpreter_paths
from finetune_rewards.runner.protocol import pack_samples
from finetune_rewards.scores.samples import Item
from support.rewards.lacking_worker import lacking
from support.rewards.refused_calls import without
from support.rewards.runners import asked, running, running_source, samples
from support.rewards.unconfined_worker import UNCONFINED

ANY = "def score(completions):\n    return [1.0] * len(completions)\n"


@pytest.mark.parametrize(
    ("what", "named"), [("seccomp", "seccomp"), ("landlock", "Landlock (Linux 5.13)")]
)
async def test_a_kernel_that_lacks_something_is_refused_by_name(
    what: str, named: str, tmp_path: Path
) -> None:
    async with running_source(ANY, tmp_path, lacking(what)) as runner:
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


OPENS = """
import ctypes, os, struct

libc = ctypes.CDLL(None)
EMPTYING = struct.pack("=QQQ", os.O_TRUNC, 0, 0)  # struct open_how
HOW = {
    "open": lambda path: os.open(path, os.O_RDONLY | os.O_TRUNC),
    "openat": lambda path: libc.openat(-100, path, os.O_RDONLY | os.O_TRUNC),
    "neither to read nor to write": lambda path: os.open(path, os.O_ACCMODE | os.O_TRUNC),
    "to write": lambda path: os.open(path, os.O_WRONLY | os.O_TRUNC),
    "creat": lambda path: libc.creat(path, 0o600),
    "openat2": lambda path: libc.syscall(437, -100, path, EMPTYING, len(EMPTYING)),
}

def score(completions, path, **kwargs):
    try:
        return [float(HOW[completions[0]](path[0].encode()) >= 0)]
    except OSError:
        return [0.0]
"""


@pytest.mark.parametrize(
    "how", ["open", "openat", "neither to read nor to write", "to write", "creat", "openat2"]
)
async def test_what_may_be_read_can_not_be_emptied_on_kernels_that_know_no_truncation(
    how: str, tmp_path: Path
) -> None:
    readable = tmp_path / "readable"
    readable.mkdir()
    library = readable / "library.py"
    library.write_text("x = 1")
    batch = samples(how, path=str(library))
    async with running_source(OPENS, tmp_path, lacking("truncate", readable)) as runner:
        assert (await asked(runner, batch)).items == [Item(0.0)]
    assert library.read_text() == "x = 1"
    async with running_source(OPENS, tmp_path, UNCONFINED) as runner:
        assert (await asked(runner, batch)).items == [Item(1.0)]
    assert library.read_text() == ""


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
    rewards = [
        Reward.model_validate({"name": kind.replace("_", "-"), kind: settings})
        for kind, settings in described.items()
    ]
    entry = '{"question": "2+2", "answer": "4", "metadata": {}}'
    batch = samples("the answer is 4", answer="4", letter="A", entry=entry)
    async with running(rewards) as runner:
        assert [reward.problem for reward in runner.describe()] == [None] * len(rewards)
        answers = await runner.score(pack_samples(batch), 1)
    assert {name: answer.items[0].error for name, answer in answers.items()} == dict.fromkeys(
        reward.name for reward in rewards
    )
    assert {name for name, answer in answers.items() if answer.items[0].score == 1.0} >= {
        *("math", "exact", "regex", "length", "repetition", "banned", "reasoning-gym"),
    }


def test_all_that_a_kernel_lacks_is_named() -> None:
    with pytest.raises(Lacking, match=r"^the kernel lacks seccomp and Landlock \(Linux 5\.13\)$"):
        without(("prctl", "landlock_create_ruleset"), lambda: confine(2**30))


def test_a_kernel_that_refuses_to_confine_is_told_of() -> None:
    with pytest.raises(Lacking, match="refused to confine the process: Function not implemented"):
        without(("prlimit64",), lambda: confine(2**30))


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
    held = re.search(r"CapPrm:\s*(\w+)", Path("/proc/self/status").read_text())
    assert held is not None
    kept = float(int(held[1], 16) & 4)  # CAP_DAC_READ_SEARCH
    assert effective == permitted == kept
    assert [inheritable, *upper] == [0.0] * 4


def test_neither_the_root_of_all_nor_a_home_is_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path.parent)
    monkeypatch.setattr("sys.path", [""])
    assert Path() not in interpreter_paths()
    monkeypatch.chdir("/")
    monkeypatch.setattr("sys.path", ["/", "//", ".", str(tmp_path), str(tmp_path / "none"), ""])
    readable = interpreter_paths()
    assert Path(sysconfig.get_config_var("LIBDIR")) in readable
    assert tmp_path in readable
    assert not {Path("/"), Path("//"), Path.home(), Path(), tmp_path / "none"} & set(readable)
    assert all(path.exists() for path in readable)
