"""Ranks as forks of the test's own process, which has imported torch already."""

from __future__ import annotations

import gc
import multiprocessing
import os
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any

from support.trainer.runs import rank_environments

SECONDS = 60.0  # after which a fork that has told its answer must have ended

# Garbage of the test's process waits, when collected, for threads that a fork has not.
os.register_at_fork(after_in_child=gc.freeze)


def forked(world: int, case: Callable[[int], Any], one_node: bool = True) -> list[Any]:
    """Return what a case, given the rank, returns on each rank of a new process group."""
    fork = multiprocessing.get_context("fork")
    pipes, processes = [], []
    for environment in rank_environments(world):
        if not one_node:
            environment["LOCAL_RANK"] = "0"
        ours, theirs = fork.Pipe(duplex=False)
        process = fork.Process(target=_run, args=(case, environment, theirs))
        process.start()
        theirs.close()
        pipes.append(ours)
        processes.append(process)
    answers = [pipe.recv() for pipe in pipes]
    for process in processes:
        process.join(SECONDS)
        assert process.exitcode == 0
    return answers


def _run(case: Callable[[int], Any], environment: Mapping[str, str], pipe: Connection) -> None:
    os.environ.update(environment)
    pipe.send(case(int(environment["RANK"])))
    os._exit(0)
