"""How much memory the worker of a reward may take, and what does not count as memory."""

from __future__ import annotations

import os
from pathlib import Path

from finetune_rewards.scores.samples import Item
from support.rewards.attacks import ATTACK, SOURCE
from support.rewards.lacking_worker import lacking
from support.rewards.runners import asked, running_source, samples


async def test_code_imports_torch_and_asks_for_a_place_for_files(tmp_path: Path) -> None:
    source = """
import ctypes.util, shutil, tempfile

import numpy
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

def score(completions):
    ctypes.util.find_library("dl")  # CUDA's torch asks; a file is written for any compiler there is
    assert shutil.which("true") is None
    tempfile.gettempdir()
    with tempfile.SpooledTemporaryFile() as kept:
        kept.write(b"x")
    with torch.no_grad():
        return torch.nn.Linear(300, 1)(torch.ones(len(completions), 300)).squeeze(1) * 0 + 1
"""
    async with running_source(source, tmp_path) as runner:
        assert runner.describe()[0].problem is None
        assert (await asked(runner, samples("a", "b"))).items == [Item(1.0)] * 2


async def test_a_library_may_map_more_of_its_files_than_the_memory(tmp_path: Path) -> None:
    large = tmp_path / "readable" / "library.so"
    large.parent.mkdir()
    large.touch()
    os.truncate(large, 2**33)  # a hole
    source = """
import mmap

def score(completions, path):
    with open(path[0], "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ)
    return [float(len(mapped))]
"""
    batch = samples("a", path=str(large))
    worker = lacking("nothing", large.parent)
    async with running_source(source, tmp_path, worker, memory_bytes=2**28) as runner:
        assert (await asked(runner, batch)).items == [Item(2.0**33)]


async def test_memory_that_was_made_read_only_counts(tmp_path: Path) -> None:
    async with running_source(SOURCE, tmp_path, memory_bytes=2**28) as runner:
        attack = samples(ATTACK, "memory that it only reads", target={})
        told = Item(error="the process took more than its 256 MiB")
        assert (await asked(runner, attack)).items == [told] * 2
        assert (await asked(runner, samples("a", target={}))).items == [Item(1.0)]


async def test_memory_counts_though_the_first_thread_has_ended(tmp_path: Path) -> None:
    source = """
import ctypes, mmap, platform, threading, time

libc = ctypes.CDLL(None)
libc.mprotect.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
EXIT = {"x86_64": 60, "aarch64": 93}[platform.machine()]  # of the thread alone

def hoard():
    time.sleep(0.2)
    kept = []
    while len(kept) < 12:
        part = mmap.mmap(-1, 2**27, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        for page in range(0, len(part), 4096):
            part[page] = 1
        kept.append(part)
        libc.mprotect(ctypes.addressof(ctypes.c_char.from_buffer(part)), len(part), 1)
    time.sleep(600)

def score(completions):
    threading.Thread(target=hoard).start()
    libc.syscall(EXIT, 0)
"""
    async with running_source(source, tmp_path, memory_bytes=2**28, timeout_seconds=60) as runner:
        told = Item(error="the process took more than its 256 MiB")
        assert (await asked(runner, samples("a"))).items == [told]


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


async def test_a_worker_has_bounds_for_all_that_it_may_use(tmp_path: Path) -> None:
    source = """
import ctypes, os, resource

def score(completions, **kwargs):
    limits = [resource.getrlimit(getattr(resource, "RLIMIT_" + name)) for name in completions]
    assert all(soft == hard for soft, hard in limits)
    return [float(soft) for soft, _ in limits]
"""
    names = ("AS", "DATA", "STACK", "CORE", "FSIZE", "MEMLOCK", "MSGQUEUE", "NOFILE", "SIGPENDING")
    async with running_source(source, tmp_path, memory_bytes=2**29) as runner:
        answer = await asked(runner, samples(*names))
    limits = [item.score for item in answer.items]
    assert limits == [2.0**29 + 2.0**35, 2.0**29, 2.0**23, 0.0, 0.0, 0.0, 0.0, 128.0, 64.0]
