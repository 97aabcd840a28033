"""Ranks as threads of one process, for what only agrees: no process group, no collectives."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any, TypeVar

import torch

from finetune_trainer.process.errors import Failure

T = TypeVar("T")


class ThreadRanks:
    """What Ranks has of agreement: `everywhere` and `lead`, of copies as a process would get."""

    device = torch.device("cpu")

    def __init__(self, rank: int, told: list[Any], barrier: Barrier) -> None:
        self.rank, self.world = rank, len(told)
        self._told, self._barrier = told, barrier

    @property
    def is_lead(self) -> bool:
        """Tell whether this is rank 0."""
        return self.rank == 0

    def everywhere(self, work: Callable[[], Any]) -> list[Any]:
        """Return what `work` made on every rank; raise what it failed with on any."""
        try:
            outcome = (work(), None)
        except Failure as failure:
            outcome = (None, failure)
        self._told[self.rank] = pickle.dumps(outcome)
        self._barrier.wait()
        outcomes = [pickle.loads(one) for one in self._told]
        self._barrier.wait()
        for _, failure in outcomes:
            if failure is not None:
                raise failure
        return [made for made, _ in outcomes]

    def lead(self, work: Callable[[], Any]) -> Any:
        """Return on every rank what `work` made on rank 0."""
        return self.everywhere(lambda: work() if self.is_lead else None)[0]


def on_ranks(world: int, run: Callable[[Any], T]) -> list[T]:
    """Return what `run` makes of each rank's ThreadRanks; raise what the first failed with."""
    told: list[Any] = [None] * world
    barrier = Barrier(world, timeout=60)

    def guarded(rank: int) -> T:
        try:
            return run(ThreadRanks(rank, told, barrier))
        except BaseException:  # or the others wait for this one
            barrier.abort()
            raise

    with ThreadPoolExecutor(world) as pool:
        return list(pool.map(guarded, range(world)))
