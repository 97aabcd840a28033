"""Progress: what rank 0 writes into the annotation of its attempt's Lease."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from finetune_contract.checkpoint import CheckpointRef
from finetune_contract.foreign import told
from finetune_contract.model import Count, Telling
from finetune_contract.resolved import Resolved

ANNOTATION = "finetune.dev/progress"
# How long a run may be without a word before it begins: nodes may find each other an hour apart.
START_SECONDS = 3600.0 + 600.0
COMPLAIN_SECONDS = 300.0  # rank 0 that can not report says so in its log, again after this long
LONGEST_NOTE = 500  # characters
_LONGEST = 32_768  # characters; several times what the most talkative run says
_MOST_REWARDS = 64


class Phase(StrEnum):
    """The part of the run that is under way."""

    DOWNLOAD = "Download"
    LOAD = "Load"
    PREPARE = "Prepare"
    ROLLOUT = "Rollout"
    SCORE = "Score"
    TRAIN = "Train"
    EVALUATE = "Evaluate"
    PUBLISH = "Publish"


class RewardProgress(Telling):
    """A reward over the completions of the last step that it scored; `errors` of the whole run.

    `seconds` is what their scoring took.
    """

    name: Annotated[str, Field(max_length=63)]
    mean: float | None = None
    std: float | None = None
    seconds: float | None = None
    errors: Count = 0


class Progress(Telling):
    """A phase with its own counter, and what was reached in earlier phases.

    The counter counts bytes in Download and Publish, rows in Prepare and Evaluate, completions in
    Rollout and Score, else optimizer steps. `step` counts optimizer steps done, whatever the phase;
    `resumed_step` is where this attempt began, if it did not begin at 0. `note` says what the run
    waits for, or what fails while it goes on. `moves` is another number whenever any process got
    on; after `stall_timeout_seconds` without that the run has stalled.
    """

    phase: Phase
    done: Count = 0
    total: Count | None = None
    step: Count | None = None
    resumed_step: Count | None = None
    checkpoint: CheckpointRef | None = None
    plan: Resolved | None = None
    loss: float | None = None
    eval_loss: float | None = None
    tokens_per_second: float | None = None
    reward: float | None = None  # mean total of the last step's completions
    rewards: Annotated[tuple[RewardProgress, ...], Field(max_length=_MOST_REWARDS)] = ()
    note: Annotated[str, Field(max_length=LONGEST_NOTE)] | None = None
    eta_seconds: Count | None = None
    stall_timeout_seconds: Count | None = None
    moves: Count | None = None

    def summary(self) -> str:
        """Return a few words for a column, such as `Train 23/60` or `Publish 40%`."""
        if not self.total:
            return str(self.phase)
        if self.phase in (Phase.DOWNLOAD, Phase.PUBLISH):
            return f"{self.phase} {100 * self.done // self.total}%"
        return f"{self.phase} {self.done}/{self.total}"


def read(text: str) -> Progress | None:
    """Return the Progress in an annotation; None if it is none."""
    return told(Progress, text, _LONGEST)
