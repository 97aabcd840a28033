"""The checkpoint protocol: a directory of files and a manifest, written last.

It holds nothing of the layout: trainable weights and optimizer moments whole, by parameter name,
in fp32. What else a step needs (order of rows, learning rate, dropout) is a function of the
recipe's seed and the step's number. So another number of processes or another ZeRO stage goes on
from it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from finetune_contract.artifact import FileEntry, Provenance, run_path
from finetune_contract.model import Count, Message, Sealed, Telling

VERSION: Literal["finetune.dev/checkpoint/v1alpha1"] = "finetune.dev/checkpoint/v1alpha1"


class Evaluation(Message):
    """The eval loss, the mean over all learned tokens of the eval set, after `step` steps."""

    step: Annotated[int, Field(ge=0)]
    loss: float


class TrainingState(Message):
    """Where a run stands between two optimizer steps."""

    step: Annotated[int, Field(ge=0)]  # optimizer steps done
    supervised_tokens: Annotated[int, Field(ge=0)]
    loss: float
    evaluation: Evaluation | None = None  # the last one
    best: Evaluation | None = None
    evaluations_without_gain: Annotated[int, Field(ge=0)] = 0
    loss_scale: float = 1.0  # FP16 only
    clean_steps: Annotated[int, Field(ge=0)] = 0  # that loss_scale has stood without an overflow
    idle_steps: Annotated[int, Field(ge=0)] = 0  # GRPO: in a row, with nothing to learn from
    tracking_run: str | None = None  # the tracker's id of the run, one across attempts


class CheckpointManifest(Sealed):
    """`manifest.json`: every file, and where the run stood."""

    version: Literal["finetune.dev/checkpoint/v1alpha1"]
    attempt: Annotated[int, Field(ge=1)]
    provenance: Provenance
    state: TrainingState
    files: Annotated[tuple[FileEntry, ...], Field(min_length=1)]


class CheckpointRef(Telling):
    """A complete checkpoint, as Progress and status tell of it."""

    uri: str
    """Its directory."""
    step: Count
    """Optimizer steps done when it was made."""
    attempt: Count
    """The attempt that made it."""


def checkpoint_path(uid: str, attempt: int, run: str, step: int) -> str:
    """Return the directory of one checkpoint, relative to output.uri; names sort by step."""
    return f"{run_path(uid, attempt, run)}/checkpoints/{step:08d}"
