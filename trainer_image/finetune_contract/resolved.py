"""How the trainer resolved what was left to it, told by Progress and by the Result."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from finetune_contract.layout import ZeroStage
from finetune_contract.model import Telling
from finetune_contract.recipe import LoraTarget


class MemoryEstimate(Telling):
    """Peak bytes of one process on its device (a GPU, or the host where there is none): a formula's
    answer, not a measurement."""

    available: int | None = None
    """What the device has."""
    weights: int
    """The frozen base model, or this process's share of it."""
    adapter: int
    """The trainable weights."""
    gradients: int
    """Their gradients."""
    optimizer: int
    """The optimizer's moments."""
    activations: int
    """What the forward pass keeps for the backward pass."""
    logits: int
    """One chunk of the vocabulary's logits and their gradient."""
    overhead: int
    """Buffers of communication, kernels and the runtime."""

    @property
    def parts(self) -> dict[str, int]:
        """Return the bytes of each part by its name."""
        names = (name for name in MemoryEstimate.model_fields if name != "available")
        return {name: getattr(self, name) for name in names}

    @property
    def total(self) -> int:
        """Return the sum of the parts."""
        return sum(self.parts.values())


class RoleCoverage(Telling):
    """The weights of one role in lora.targets."""

    role: LoraTarget
    """The role."""
    found: int
    """Weight matrices of the model that play it."""
    adapted: int
    """Those that got an adapter."""


class Resolved(Telling):
    """The Auto values as they were resolved, what they cost, and what LoRA reaches.

    `lora` is empty until the model is loaded.
    """

    micro_batch_size: Annotated[int, Field(ge=1)]
    accumulation_steps: Annotated[int, Field(ge=1)]
    zero_stage: ZeroStage
    gradient_checkpointing: bool
    packing: bool
    memory: MemoryEstimate
    lora: tuple[RoleCoverage, ...] = ()
