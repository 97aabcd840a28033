"""How the trainer resolved what was left to it, told by Progress and by the Result."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from finetune_contract.layout import ZeroStage
from finetune_contract.model import Telling
from finetune_contract.recipe import LoraTarget

Bytes = Annotated[int, Field(ge=0)]


class MemoryEstimate(Telling):
    """Peak bytes of one process on its device (a GPU, or the host where there is none): a formula's
    answer, not a measurement. `available` is what the device has; None if it does not tell."""

    weights: Bytes
    adapter: Bytes
    gradients: Bytes
    optimizer: Bytes
    activations: Bytes
    logits: Bytes
    overhead: Bytes
    available: Bytes | None = None

    @property
    def total(self) -> int:
        """Return the sum of the parts."""
        return (
            self.weights
            + self.adapter
            + self.gradients
            + self.optimizer
            + self.activations
            + self.logits
            + self.overhead
        )


class RoleCoverage(Telling):
    """The weight matrices that play a role, and how many of them got an adapter."""

    role: LoraTarget
    found: Annotated[int, Field(ge=0)]
    adapted: Annotated[int, Field(ge=0)]


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
