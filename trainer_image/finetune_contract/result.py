"""Result: how a pod ended, as the JSON of its termination message.

Kubernetes cuts a termination message at 4,096 bytes and, under `FallbackToLogsOnError`, may hand
over the end of the log instead; so encoding always fits and decoding forgives.
"""

from __future__ import annotations

from enum import StrEnum

from finetune_contract.checkpoint import CheckpointRef
from finetune_contract.foreign import object_end, told
from finetune_contract.model import Count, Positive, Telling
from finetune_contract.reasons import Reason
from finetune_contract.resolved import Resolved

MAX_BYTES = 4096
_LONGEST = 3 * MAX_BYTES  # of what is looked at; a kubelet keeps no more of a whole pod


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
    bytes: Count
    """Size of its files."""


class Result(Telling):
    """One per pod. `frames` are the project's own stack frames, innermost last; never data rows.

    `step` is the optimizer step under way at a failure, counted from 1; else the steps done.
    """

    attempt: Positive
    outcome: Outcome
    reason: Reason
    message: str = ""
    step: Count | None = None
    rank: Count | None = None  # the first rank that failed
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
    text = text[-_LONGEST:]
    found: Result | None = None
    start = text.find("{")
    while start != -1:
        end = object_end(text, start)
        result = told(Result, text[start:end], MAX_BYTES) if end is not None else None
        found = result or found
        start = text.find("{", start + 1 if result is None else end)
    return found
