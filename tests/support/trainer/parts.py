"""Runs as the parts of the trainer are given them."""

from __future__ import annotations

from typing import Any

from finetune_contract.layout import Checkpointing, ZeroStage
from finetune_contract.recipe import Recipe
from finetune_contract.resolved import MemoryEstimate, Resolved
from finetune_contract.runconfig import RunConfig
from finetune_trainer.course.progress import Reporter
from finetune_trainer.methods.grpo.losses import GrpoObjective
from finetune_trainer.methods.sft.learning import SupervisedObjective
from finetune_trainer.process.stopping import Stop
from finetune_trainer.run import ResolvedRun, Run
from finetune_trainer.step.objective import Objective


def memory(free: int = 2**30) -> MemoryEstimate:
    """Return an estimate that leaves so many bytes to rollouts."""
    parts = {"weights": 64, "adapter": 32, "gradients": 16, "optimizer": 8, "overhead": 4}
    return MemoryEstimate(**parts, activations=2, logits=1, available=free + sum(parts.values()))


def resolved_of(config: RunConfig, free: int = 2**30) -> Resolved:
    """Return what a layout says itself; a micro-batch of 1 where it says nothing."""
    layout = config.layout
    size, world = layout.micro_batch_size or 1, layout.world_size
    sharded = world > 1 or bool(layout.offload)
    return Resolved(
        micro_batch_size=size,
        accumulation_steps=config.recipe.training.global_batch_size // (size * world),
        zero_stage=layout.zero_stage if layout.zero_stage and sharded else ZeroStage.DDP,
        gradient_checkpointing=layout.gradient_checkpointing is Checkpointing.ALWAYS,
        packing=layout.packing,
        memory=memory(free),
    )


def run_of(config: RunConfig, ranks: Any, reporter: Reporter | None = None) -> Run:
    """Return a rank's run that nothing stops."""
    return Run(config, ranks, reporter or Reporter(), Stop(60, lambda: None))


def resolved_run(
    config: RunConfig, ranks: Any, reporter: Reporter | None = None, free: int = 2**30
) -> ResolvedRun:
    """Return a rank's run by `resolved_of`."""
    return run_of(config, ranks, reporter).settled(resolved_of(config, free))


def objective_of(recipe: Recipe) -> Objective:
    """Return what steps by a recipe minimise."""
    return SupervisedObjective() if recipe.grpo is None else GrpoObjective(recipe.grpo)
