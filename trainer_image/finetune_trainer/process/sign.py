"""A rank's sign of life, in a file that its launcher watches, and where it tells its stacks.

Torch-free, so that it is there before torch is imported.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
from dataclasses import asdict, dataclass
from pathlib import Path

from finetune_contract.progress import START_SECONDS

ASKS = signal.SIGUSR1  # for stacks


@dataclass(frozen=True)
class Sign:
    """What a rank was at. `moves` is another number whenever any rank of the run got on;
    `patience` is for how many seconds it may stay as it is."""

    pid: int
    moves: int = 0
    phase: str = ""
    step: int | None = None  # under way, counted from 1
    patience: float = START_SECONDS


class SignFile:
    """One rank's sign on disk, and beside it the stacks of all its threads once asked for."""

    def __init__(self, directory: Path, rank: int) -> None:
        self._path = directory / f"rank-{rank}.sign"
        self.stacks = directory / f"rank-{rank}.stacks"

    def begin(self) -> None:
        """Give the first sign; from now on tell stacks when asked, whatever the process is in.

        The handler is C: it needs neither the interpreter's lock nor the main thread's attention.
        """
        faulthandler.register(ASKS, self.stacks.open("w"), all_threads=True)
        self.write(Sign(os.getpid()))

    def write(self, sign: Sign) -> None:
        """Replace the sign."""
        partial = self._path.with_suffix(".new")
        partial.write_text(json.dumps(asdict(sign)))
        partial.rename(self._path)

    def read(self) -> Sign | None:
        """Return the sign; None if the rank never began."""
        return Sign(**json.loads(self._path.read_text())) if self._path.exists() else None
