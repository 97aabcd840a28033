"""What is read of a process, against what psutil reads of it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import psutil
import pytest

from finetune_rewards.confine.kernel import prctl
from finetune_rewards.runner.process_table import cpu_seconds, own_bytes, threads

PR_SET_NAME = 15


def test_threads_time_and_memory_of_a_process_with_an_odd_name() -> None:
    ready, done = threading.Barrier(4), threading.Event()

    def wait() -> None:
        ready.wait()
        done.wait()

    waiting = [threading.Thread(target=wait) for _ in range(3)]
    name = os.fsencode(open("/proc/self/comm").read().rstrip("\n"))  # noqa: SIM115
    for thread in waiting:
        thread.start()
    ready.wait()
    process, page = psutil.Process(), 2**20
    try:
        prctl(PR_SET_NAME, b") R (1 2) 3")
        assert threads(os.getpid()) == process.num_threads() >= 4
        os.urandom(2**27)  # for the kernel's part
        times, found = process.cpu_times(), cpu_seconds(os.getpid())
        assert min(times.user, times.system) > 0.05
        assert found == pytest.approx(times.user + times.system, abs=0.04)
        memory = process.memory_info()
        assert own_bytes(os.getpid()) == pytest.approx(memory.rss - memory.shared, abs=page)
        assert memory.shared > 4 * page
    finally:
        prctl(PR_SET_NAME, name)
        done.set()


def test_nothing_is_left_of_a_process_that_is_gone() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    assert (threads(process.pid), cpu_seconds(process.pid), own_bytes(process.pid)) == (0, 0, 0)
