"""What is asked of Landlock by each ABI that kernels have, and what it leaves a worker."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import pytest

from finetune_rewards.confine.landlock import abi, handled
from finetune_rewards.scores.samples import Item
from support.rewards.lacking_worker import lacking
from support.rewards.refused_calls import without
from support.rewards.runners import asked, running_source, samples
from support.rewards.unconfined_worker import UNCONFINED


@pytest.mark.parametrize(
    ("version", "words"),
    [
        (1, [0x1FFF]),
        (2, [0x3FFF]),
        (3, [0x7FFF]),
        (4, [0x7FFF, 0b11]),
        (5, [0xFFFF, 0b11]),
        (6, [0xFFFF, 0b11, 0b11]),
        (9, [0xFFFF, 0b11, 0b11]),
    ],
)
def test_all_that_a_kernel_can_refuse_is_refused(version: int, words: list[int]) -> None:
    attributes = handled(version)
    assert list(struct.unpack(f"={len(attributes) // 8}Q", attributes)) == words


def test_a_kernel_without_it_has_no_abi() -> None:
    assert abi() > 0
    assert without(("landlock_create_ruleset",), abi) == 0


READS = """
import os, subprocess

def attempt(name, path):
    match name:
        case "read": assert open(path).read() == "x = 1"
        case "run": subprocess.run([os.path.dirname(path) + "/program"], check=True)
        case "write": open(path, "r+").close()
        case "truncate": os.truncate(path, 1)
        case "remove": os.remove(path)
        case "rename": os.rename(path, path + "2")
        case "make": open(path + "3", "w").close()
        case "make a directory": os.mkdir(path + "4")
        case "link": os.link(path, path + "5")
        case "write a device": open("/dev/urandom", "wb").close()

def score(completions, path, **kwargs):
    try:
        attempt(completions[0], path[0])
    except OSError:
        return [0.0]
    return [1.0]
"""


async def test_what_may_be_read_may_only_be_read(tmp_path: Path) -> None:
    """Also where nothing but Landlock confines."""
    readable = tmp_path / "readable"
    readable.mkdir()
    library = readable / "library.py"
    library.write_text("x = 1")
    shutil.copy("/bin/true", readable / "program")
    changes = ["run", "write", "make", "make a directory", "link", "write a device"]
    changes += ["truncate"] * (abi() >= 3)
    worker = lacking("seccomp", readable)
    before = sorted(readable.iterdir())
    async with running_source(READS, tmp_path, worker, allow_unconfined=True) as runner:
        for name in ("read", *changes, "rename", "remove"):
            (item,) = (await asked(runner, samples(name, path=str(library)))).items
            assert item == Item(float(name == "read")), name
    assert sorted(readable.iterdir()) == before
    async with running_source(READS, tmp_path, UNCONFINED) as runner:
        for name in ("read", *changes, "rename"):
            (item,) = (await asked(runner, samples(name, path=str(library)))).items
            assert item == Item(1.0), name


async def test_what_libraries_look_up_can_be_read(tmp_path: Path) -> None:
    source = """
import os

def score(completions):
    return [float(bool(reads(path))) for path in completions]

def reads(path):
    if os.path.isdir(path):
        return os.listdir(path)
    with open(path, "rb") as file:
        return bool(file.read(1)) != (path == "/dev/null")
"""
    paths = ["/dev/null", "/dev/urandom", "/proc/cpuinfo", "/etc/ld.so.cache", "/usr/lib"]
    paths += [p for p in ("/etc/ssl/openssl.cnf", "/usr/share/zoneinfo") if Path(p).exists()]
    async with running_source(source, tmp_path) as runner:
        answer = await asked(runner, samples(*paths))
    assert answer.items == [Item(1.0)] * len(paths)
