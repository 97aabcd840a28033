"""The FineTuneJob resource: group, version, names, and the rules on the whole object."""

from __future__ import annotations

from typing import Any, Literal

from finetune_api.spec import FineTuneJobSpec
from finetune_api.status import FineTuneJobStatus
from finetune_api.types import Rule
from finetune_contract.model import Message

GROUP = "finetune.dev"
VERSION = "v1alpha1"
KIND = "FineTuneJob"
PLURAL = "finetunejobs"
SINGULAR = "finetunejob"
SHORT_NAME = "ftj"
MAX_NAME_LENGTH = 40

_FROZEN = (
    *("model", "data", "method", "lora", "training", "eval", "memory", "workers", "checkpoint"),
    "output",
)
_FROZEN_IF_THERE = ("tracking",)  # has no default: it may be added or removed


def _frozen_once_begun(job: type[FineTuneJob]) -> type[FineTuneJob]:
    """Add the rules by which no stanza but runPolicy changes under an attempt."""
    for stanza in reversed((*_FROZEN, *_FROZEN_IF_THERE)):
        same = f"self.spec.{stanza} == oldSelf.spec.{stanza}"
        if stanza in _FROZEN_IF_THERE:
            new, old = f"has(self.spec.{stanza})", f"has(oldSelf.spec.{stanza})"
            same = f"({new} ? {old} && {same} : !{old})"
        job = Rule(
            f"{same} || !has(oldSelf.status) || "
            "!has(oldSelf.status.attempts) || size(oldSelf.status.attempts) == 0",
            f"spec.{stanza} can not change once an attempt has started; create a new job instead",
            f".spec.{stanza}",
        )(job)
    return job


@Rule(
    f"size(self.metadata.name) <= {MAX_NAME_LENGTH} && "
    "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
    f"metadata.name must be at most {MAX_NAME_LENGTH} characters: a lower-case letter, "
    "then letters, digits and dashes",
    ".metadata.name",
)
@_frozen_once_begun
class FineTuneJob(Message):
    """A fine-tuning job: trains a LoRA adapter and publishes it, verified, to object storage."""

    api_version: Literal["finetune.dev/v1alpha1"]
    kind: Literal["FineTuneJob"]
    metadata: dict[str, Any]
    spec: FineTuneJobSpec
    """What to train, on what, how, and where the adapter goes."""
    status: FineTuneJobStatus | None = None
    """What the operator has seen and done; written by the operator only."""

    @property
    def name(self) -> str:
        """Return metadata.name."""
        return str(self.metadata["name"])

    @property
    def namespace(self) -> str:
        """Return metadata.namespace."""
        return str(self.metadata["namespace"])

    @property
    def uid(self) -> str:
        """Return metadata.uid."""
        return str(self.metadata["uid"])

    @property
    def generation(self) -> int:
        """Return metadata.generation."""
        return int(self.metadata["generation"])
