"""Contenders in processes of their own that take turns, so that a busy machine slows both."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback


@dataclass
class Turns:
    """What a contender did: the answer of each round, and its highest resident set in bytes."""

    threads: int
    answers: list[Any] = field(default_factory=list)
    peaks: list[int] = field(default_factory=list)


def take_turns(
    contend: Callable[..., None], names: Sequence[str], rounds: int, *arguments: Any
) -> dict[str, Turns]:
    """Start `contend(name, pipe, *arguments)` for each name, which calls `serve`; do the rounds."""
    spawn = multiprocessing.get_context("spawn")
    pipes, turns = {}, {}
    for name in names:
        pipes[name], theirs = spawn.Pipe()
        spawn.Process(target=contend, args=(name, theirs, *arguments), daemon=True).start()
        theirs.close()  # so that a contender's death ends the wait for its answer
        turns[name] = Turns(threads=pipes[name].recv())
    for number in range(rounds):
        for name in list(names)[:: 1 if number % 2 == 0 else -1]:
            pipes[name].send(True)
            answer, peak = pipes[name].recv()
            turns[name].answers.append(answer)
            turns[name].peaks.append(peak)
    for pipe in pipes.values():
        pipe.send(False)
    return turns


def serve(pipe: Connection, one_round: Callable[[], Any]) -> None:
    """Be one contender: do a round when told to, answer with what it returns and the peak."""
    pipe.send(torch.get_num_threads())
    while pipe.recv():
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        pipe.send((one_round(), peak_bytes()))


def peak_bytes() -> int:
    """Return the highest resident set since the peak began anew."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024


class StepTimer(TrainerCallback):
    """Keeps the seconds between the beginnings of steps, data loading and clean-up included."""

    def __init__(self) -> None:
        self._marks: list[float] = []

    def on_train_begin(self, *arguments: Any, **options: Any) -> None:
        self._marks.clear()

    def on_step_begin(self, *arguments: Any, **options: Any) -> None:
        self._marks.append(time.monotonic())

    def on_train_end(self, *arguments: Any, **options: Any) -> None:
        self._marks.append(time.monotonic())

    @property
    def seconds(self) -> list[float]:
        """Return the steps' seconds of the last training."""
        return [end - begin for begin, end in zip(self._marks, self._marks[1:], strict=False)]
