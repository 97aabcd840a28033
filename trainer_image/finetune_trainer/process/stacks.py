"""The stacks of ranks that stand still: asked for, read, and put in a sentence.

A rank in a system call or a kernel, one that holds the interpreter's lock and one that was stopped
all tell theirs; one that the kernel does not wake tells its state only.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from signal import SIGCONT

from finetune_trainer.process.ending import PACKAGE
from finetune_trainer.process.sign import ASKS, Sign, SignFile

DUMP_SECONDS = 5.0
LONGEST = 64 * 1024  # characters of one rank
MOST_PLACES = 4
_FRAME = re.compile(r'^  File "(.*)", line (\d+) in (.*)$', re.MULTILINE)
# Where a rank stands that waits for others.
_WAITS = re.compile(r"/(torch/distributed|finetune_trainer/process/distributed)\b")


@dataclass(frozen=True)
class Stack:
    """What a rank told: its state before it was asked, and the frames of all its threads."""

    state: str
    text: str

    @property
    def frames(self) -> list[tuple[str, int, str]]:
        """Return the main thread's frames, innermost first: faulthandler writes it last."""
        main = self.text.rpartition("hread 0x")[2]
        return [(file, int(line), name) for file, line, name in _FRAME.findall(main)]

    @property
    def waits(self) -> bool:
        """Tell whether it waits for another rank."""
        return bool(self.frames) and _WAITS.search(self.frames[0][0]) is not None

    @property
    def place(self) -> str:
        """Return where it stands, in a few words."""
        if not self.frames:
            return f"no frame of its own (it is {self.state})"
        own = [frame for frame in self.frames if Path(frame[0]).is_relative_to(PACKAGE)]
        told = [self.frames[0], *own[:1]]
        return " called from ".join(dict.fromkeys(_short(frame) for frame in told))


def ask(files: Mapping[int, tuple[SignFile, Sign]]) -> dict[int, Stack]:
    """Return the stacks of ranks; one that was stopped is let go on, so that it can tell."""
    states = {rank: _state(sign.pid) for rank, (_, sign) in files.items()}
    for _, sign in files.values():
        for number in (ASKS, SIGCONT):
            with suppress(ProcessLookupError):
                os.kill(sign.pid, number)
    _settle([file.stacks for file, _ in files.values()])
    return {
        rank: Stack(states[rank], file.stacks.read_text(errors="replace")[:LONGEST])
        for rank, (file, _) in files.items()
    }


def in_words(stacks: Mapping[int, Stack]) -> str:
    """Return which rank stands where, those that others wait for first."""
    if not stacks:
        return "none has begun"
    culprits = {rank: stack for rank, stack in stacks.items() if not stack.waits}
    waiting = sorted(stacks.keys() - culprits.keys())
    places: dict[str, list[int]] = {}
    for rank, stack in sorted((culprits or stacks).items()):
        places.setdefault(stack.place, []).append(rank)
    parts = [f"{_ranks(of)} in {place}" for place, of in [*places.items()][:MOST_PLACES]]
    if culprits and waiting:
        parts.append(f"{_ranks(waiting)} waiting for another")
    return "; ".join(parts)


def _ranks(ranks: list[int]) -> str:
    return ("rank " if len(ranks) == 1 else "ranks ") + ", ".join(map(str, ranks))


def _short(frame: tuple[str, int, str]) -> str:
    file, line, name = frame
    return f"{'/'.join(Path(file).parts[-2:])}:{line} {name}"


def _state(pid: int) -> str:
    """Return a process's state as the kernel tells it, such as `S (sleeping)` or `T (stopped)`."""
    with suppress(OSError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return next(line for line in lines if line.startswith("State:")).partition("\t")[2]
    return "gone"


def _settle(files: list[Path]) -> None:
    """Wait until all have told, for a while."""
    deadline, before = time.monotonic() + DUMP_SECONDS, [0]
    while time.monotonic() < deadline:
        sizes = [file.stat().st_size for file in files]
        if all(sizes) and sizes == before:
            return
        before = sizes
        time.sleep(0.25)
