"""Result: how a pod ended, as the JSON of its termination message.

Kubernetes cuts a termination message at 4,096 bytes and, under `FallbackToLogsOnError`, may hand
over the end of the log instead; so encoding always fits and decoding forgives.
"""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated

from pydantic import Field, ValidationError

from finetune_contract.checkpoint import CheckpointRef
from finetune_contract.model import Telling
from finetune_contract.reasons import Reason
from finetune_contract.resolved import Resolved

MAX_BYTES = 4096


class Outcome(StrEnum):
    """Whether the pod did its part."""

    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class PublishedArtifact(Telling):
    """An artifact that was read back and found whole."""

    uri: str
    """Directory of the adapter."""
    digest: str
    """sha256 of its manifest.json."""
    bytes: int
    """Size of its files."""


class Result(Telling):
    """One per pod. `frames` are the project's own stack frames, innermost last; never data rows.

    `step` is the optimizer step under way at a failure, counted from 1; else the steps done.
    """

    attempt: Annotated[int, Field(ge=1)]
    outcome: Outcome
    reason: Reason
    message: str = ""
    step: int | None = None
    rank: int | None = None  # the first rank that failed
    frames: tuple[str, ...] = ()
    artifact: PublishedArtifact | None = None
    checkpoint: CheckpointRef | None = None  # the newest complete one that this attempt knows
    plan: Resolved | None = None

    def encode(self) -> str:
        """Return JSON of at most 4,096 bytes: outer frames go first, then the message's end."""
        result = self
        while len(text := result.to_json().encode()) > MAX_BYTES:
            if result.frames:
                update: dict[str, object] = {"frames": result.frames[1:]}
            else:
                update = {"message": result.message[: len(result.message) * 9 // 10 - 1] + "…"}
            result = result.model_copy(update=update)
        return text.decode()


def decode(text: str) -> Result | None:
    """Return the last Result in a termination message; None if there is none."""
    decoder = json.JSONDecoder()
    found: Result | None = None
    start = text.find("{")
    while start != -1:
        try:
            value, end = decoder.raw_decode(text, start)
            found = Result.model_validate(value)
        except (json.JSONDecodeError, ValidationError):
            end = start + 1
        start = text.find("{", end)
    return found
