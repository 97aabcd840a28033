"""Progress: what rank 0 writes into the annotation of its attempt's Lease."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from finetune_contract.model import Message

ANNOTATION = "finetune.dev/progress"


class Phase(StrEnum):
    """The part of the run that is under way."""

    DOWNLOAD = "Download"
    LOAD = "Load"
    PREPARE = "Prepare"
    TRAIN = "Train"
    EVALUATE = "Evaluate"
    PUBLISH = "Publish"


class Progress(Message):
    """A phase with its own counter: bytes in Download and Publish, rows in Prepare, else steps."""

    phase: Phase
    done: Annotated[int, Field(ge=0)] = 0
    total: Annotated[int, Field(ge=0)] | None = None
    loss: float | None = None
    tokens_per_second: float | None = None
    eta_seconds: Annotated[int, Field(ge=0)] | None = None

    def summary(self) -> str:
        """Return a few words for a column, such as `Train 23/60` or `Publish 40%`."""
        if not self.total:
            return str(self.phase)
        if self.phase in (Phase.DOWNLOAD, Phase.PUBLISH):
            return f"{self.phase} {100 * self.done // self.total}%"
        return f"{self.phase} {self.done}/{self.total}"
