"""How the trainer resolved what was left to it, told by Progress and by the Result."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from finetune_contract.foreign import LARGEST
from finetune_contract.layout import ZeroStage
from finetune_contract.model import Count, Positive, Telling
from finetune_contract.recipe import LoraTarget

GIB = 2**30


class MemoryEstimate(Telling):
    """Peak bytes of one process on its device (a GPU, or the host where there is none): a formula's
    answer, not a measurement."""

    available: Count | None = None
    """What the device has."""
    weights: Count
    """The frozen base model, or this process's share of it."""
    adapter: Count
    """The trainable weights."""
    gradients: Count
    """Their gradients."""
    optimizer: Count
    """The optimizer's moments."""
    activations: Count
    """What the forward pass keeps for the backward pass."""
    logits: Count
    """One chunk of the vocabulary's logits and their gradient."""
    overhead: Count
    """Buffers of communication, kernels and the runtime."""

    @model_validator(mode="after")
    def _has_a_total(self) -> Self:
        if self.total > LARGEST:
            raise ValueError(f"the parts add up to more than {LARGEST}")
        return self

    @property
    def parts(self) -> dict[str, int]:
        """Return the bytes of each part by its name."""
        names = (name for name in MemoryEstimate.model_fields if name != "available")
        return {name: getattr(self, name) for name in names}

    @property
    def total(self) -> int:
        """Return the sum of the parts."""
        return sum(self.parts.values())

    def in_words(self) -> str:
        """Return the sum beside what there is, and its parts."""
        told = ", ".join(f"{part} {size / GIB:.1f}" for part, size in self.parts.items())
        available = "" if self.available is None else f" of {self.available / GIB:.1f}"
        return f"{self.total / GIB:.1f}{available} GiB ({told})"


class RoleCoverage(Telling):
    """The weights of one role in lora.targets."""

    role: LoraTarget
    """The role."""
    found: Count
    """Weight matrices of the model that play it."""
    adapted: Count
    """Those that got an adapter."""


def _each_role_once(lora: tuple[RoleCoverage, ...]) -> tuple[RoleCoverage, ...]:
    if len({coverage.role for coverage in lora}) < len(lora):
        raise ValueError("a role is told of twice")
    return lora


# What training can not mend by itself, in words. A Result, which has little room, holds it too.
LONGEST_ADVICE = 400  # characters
Advice = Annotated[str, Field(max_length=LONGEST_ADVICE)]


class Resolved(Telling):
    """The Auto values as they were resolved, what they cost, and what LoRA reaches.

    `lora` and `advice` are empty until the model is loaded.
    """

    micro_batch_size: Positive
    accumulation_steps: Positive
    zero_stage: ZeroStage
    gradient_checkpointing: bool
    packing: bool
    memory: MemoryEstimate
    lora: Annotated[tuple[RoleCoverage, ...], AfterValidator(_each_role_once)] = ()
    advice: Annotated[tuple[Advice, ...], Field(max_length=4)] = ()
