"""Ranks that get on no more tell where they stand, in the log and the bucket, and are ended."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from finetune_contract.progress import START_SECONDS
from finetune_contract.reasons import Reason
from finetune_trainer.process.sign import Sign, SignFile
from finetune_trainer.stall import LOOK_SECONDS, Watch, wait
from support.trainer.runs import run_config

# A process of the rank's kind: it gives signs, and then stands in what its argument says.
RANK = """
import os, sys, time
from pathlib import Path
from finetune_trainer.process.sign import Sign, SignFile

def stands_here():
    print("begun", flush=True)
    exec(sys.argv[2])

file = SignFile(Path(sys.argv[1]), int(os.environ["RANK"]))
file.begin()
file.write(Sign(os.getpid(), 7, "Train", 12, 0.5))
stands_here()
"""
SLEEPS = "time.sleep(600)"
HOLDS_THE_LOCK = "import ctypes\nwhile True: ctypes.PyDLL(None).sleep(600)"  # a signal ends one


class Ranks:
    """What torchrun is to the launcher: a process that ends with its ranks."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.files: dict[int, SignFile] = {}
        self.processes: list[subprocess.Popen[str]] = []
        self.torchrun = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])

    def start(self, does: str) -> subprocess.Popen[str]:
        rank = len(self.processes)
        process = subprocess.Popen(
            [sys.executable, "-c", RANK, str(self._directory), does],
            env={**os.environ, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        self.files[rank] = SignFile(self._directory, rank)
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        return process

    def end_with_ranks(self) -> None:
        def end() -> None:
            for process in self.processes:
                process.wait()
            self.torchrun.kill()

        Thread(target=end, daemon=True).start()


@pytest.fixture
def ranks(tmp_path: Path) -> Iterator[Ranks]:
    made = Ranks(tmp_path)
    yield made
    for process in [*made.processes, made.torchrun]:
        process.kill()
        process.wait()


def test_every_rank_tells_where_it_stands(
    ranks: Ranks, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Asleep, with the interpreter's lock held in C, and stopped by a signal."""
    ranks.start(SLEEPS)
    ranks.start(HOLDS_THE_LOCK)
    elsewhere = f"\n\n{SLEEPS}"  # it may be stopped before it gets there, or after
    ranks.start(elsewhere).send_signal(signal.SIGSTOP)
    ranks.end_with_ranks()
    layout = run_config(tmp_path).layout
    stall = wait(ranks.torchrun, ranks.files, layout, 0, lambda: False)
    assert stall is not None
    assert (stall.reason, stall.step, stall.rank) == (Reason.STALLED, 12, 0)
    told = (tmp_path / "out/runs/uid-1/a1/stacks/node-0.txt").read_text()
    assert told.count("in stands_here") == 3
    assert "rank 2, T (stopped)" in told
    assert told in caplog.text
    kept = f"{layout.output_uri}/runs/uid-1/a1/stacks/node-0.txt"
    assert re.fullmatch(
        r"no rank got on for 1 s in Train at step 12: rank 0 in <string>:1 <module>; "
        r"rank 1 in <string>:2 <module>; "
        r"rank 2 in <string>:\d+ (stands_here|<module>); "
        rf"the stacks are in the pod's log and at {kept}",
        stall.message,
    )
    assert all(process.wait() == -signal.SIGKILL for process in ranks.processes)


def test_a_store_that_is_away_keeps_no_stacks_and_ends_nothing_else(
    ranks: Ranks, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ranks.start(SLEEPS)
    ranks.end_with_ranks()
    (tmp_path / "file").touch()
    layout = run_config(tmp_path, outputUri=(tmp_path / "file" / "out").as_uri()).layout
    stall = wait(ranks.torchrun, ranks.files, layout, 0, lambda: False)
    assert stall is not None
    assert stall.message.endswith("; the stacks are in the pod's log")
    assert "in stands_here" in caplog.text


def test_a_pod_that_is_told_to_stop_is_left_to_its_grace(ranks: Ranks, tmp_path: Path) -> None:
    ranks.start(SLEEPS)
    Thread(target=lambda: (time.sleep(3 * LOOK_SECONDS), ranks.torchrun.kill())).start()
    layout = run_config(tmp_path).layout
    assert wait(ranks.torchrun, ranks.files, layout, 0, lambda: True) is None
    assert ranks.processes[0].poll() is None


class Clock:
    """Seconds as a test says."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def looked(watch: Watch, clock: Clock, seconds: float) -> bool:
    """Look each second for so long; return what the last look found."""
    found = False
    for _ in range(round(seconds)):
        clock.now += 1
        found = watch.stands_still()
    return found


def test_any_change_of_any_rank_is_progress(tmp_path: Path) -> None:
    clock, files = Clock(), {rank: SignFile(tmp_path, rank) for rank in (0, 1)}
    for file in files.values():
        file.write(Sign(1, 1, "Train", 1, 10))
    watch = Watch(files, clock)
    assert not looked(watch, clock, 9)
    files[1].write(Sign(1, 2, "Train", 1, 10))
    assert not looked(watch, clock, 10)
    assert looked(watch, clock, 1)


def test_the_most_patient_rank_decides(tmp_path: Path) -> None:
    clock, files = Clock(), {rank: SignFile(tmp_path, rank) for rank in (0, 1)}
    files[0].write(Sign(1, 1, "Publish", 1, 20))
    files[1].write(Sign(1, 1, "Train", 1, 10))
    watch = Watch(files, clock)
    assert not looked(watch, clock, 20)
    assert looked(watch, clock, 1)


def test_ranks_that_have_not_begun_may_wait_for_other_nodes(tmp_path: Path) -> None:
    clock = Clock()
    watch = Watch({0: SignFile(tmp_path, 0)}, clock)
    assert not looked(watch, clock, START_SECONDS - 1)
    assert looked(watch, clock, 1)


def test_time_in_which_the_launcher_was_frozen_counts_for_nothing(tmp_path: Path) -> None:
    clock, file = Clock(), SignFile(tmp_path, 0)
    file.write(Sign(1, 1, "Train", 1, 60))
    watch = Watch({0: file}, clock)
    looked(watch, clock, 10)
    clock.now += 3600
    assert not watch.stands_still()
