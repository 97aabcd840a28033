"""What the job leaves to the trainer: Auto values, before any weights are fetched."""

from __future__ import annotations

from finetune_contract.layout import Checkpointing, ZeroStage
from finetune_contract.plan import MemoryEstimate, ResolvedPlan
from finetune_contract.runconfig import RunConfig


def resolve(config: RunConfig) -> tuple[RunConfig, ResolvedPlan]:
    """Return the RunConfig without Auto, and the plan that tells of it."""
    layout = config.layout.model_copy(
        update={
            "micro_batch_size": config.layout.micro_batch_size or 1,
            "zero_stage": ZeroStage.GRADIENTS
            if config.layout.zero_stage is None
            else config.layout.zero_stage,
            "gradient_checkpointing": Checkpointing.NEVER,
        }
    )
    resolved = config.model_copy(update={"layout": layout})
    nothing = MemoryEstimate(
        weights=0, adapter=0, gradients=0, optimizer=0, activations=0, logits=0, overhead=0
    )
    return resolved, ResolvedPlan(
        micro_batch_size=resolved.micro_batch_size,
        accumulation_steps=resolved.accumulation_steps,
        zero_stage=layout.zero_stage or ZeroStage.DDP,
        gradient_checkpointing=False,
        packing=layout.packing,
        memory=nothing,
    )
