"""What decides an attempt's memory and not its adapter: the job's own, then less and less of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from finetune_api.job import FineTuneJob
from finetune_api.spec import FineTuneJobSpec
from finetune_api.status import Attempt
from finetune_api.training import AUTO
from finetune_contract.layout import Checkpointing, Offload
from finetune_operator.job.workers import asks_for_gpus, processes


@dataclass(frozen=True)
class Footprint:
    """What an attempt is told of memory; None and Auto are settled by its trainer."""

    micro_batch_size: int | None
    gradient_checkpointing: Checkpointing
    offload: tuple[Offload, ...]

    @classmethod
    def asked(cls, spec: FineTuneJobSpec) -> Footprint:
        """Return what the job says."""
        size = spec.training.micro_batch_size
        return cls(
            None if size == AUTO else int(size),
            spec.memory.gradient_checkpointing,
            spec.memory.offload,
        )

    @classmethod
    def of(cls, job: FineTuneJob, attempt: Attempt) -> Footprint:
        """Return what an attempt runs with, as its record says."""
        asked = cls.asked(job.spec)
        always = Checkpointing.ALWAYS if attempt.gradient_checkpointing else None
        return cls(
            attempt.micro_batch_size,
            always or asked.gradient_checkpointing,
            tuple(attempt.offload or ()) or asked.offload,
        )

    def record(self) -> dict[str, Any]:
        """Return the fields of an attempt's record that say so."""
        computed_again = {Checkpointing.ALWAYS: True, Checkpointing.NEVER: False}
        return {
            "micro_batch_size": self.micro_batch_size,
            "gradient_checkpointing": computed_again.get(self.gradient_checkpointing),
            "offload": list(self.offload) or None,
        }

    def changed(self, since: Footprint) -> str:
        """Return what is set here and was not before, in the job's words."""
        now = []
        if self.micro_batch_size != since.micro_batch_size:
            now.append(f"microBatchSize {self.micro_batch_size}")
        if self.gradient_checkpointing is not since.gradient_checkpointing:
            now.append(f"gradientCheckpointing {self.gradient_checkpointing}")
        if self.offload != since.offload:
            now.append(f"offload [{', '.join(self.offload)}]")
        return " and ".join(now)


def smaller(job: FineTuneJob, now: Footprint) -> Footprint | None:
    """Return the next that takes less memory, what costs least time first; None: there is none.

    The micro-batch is halved also where the job sets it. Checkpointing and offload, which cost
    much more, follow only where the job leaves them open.
    """
    if now.micro_batch_size != 1:
        return replace(now, micro_batch_size=_at_most_half(job, now.micro_batch_size))
    if now.gradient_checkpointing is Checkpointing.AUTO:
        return replace(now, gradient_checkpointing=Checkpointing.ALWAYS)
    if not now.offload and (offload := _offload(job)):
        return replace(now, offload=offload)
    return None


def least(job: FineTuneJob, now: Footprint) -> str:
    """Return why nothing takes less memory, in the job's words."""
    parts = [
        "microBatchSize is 1 already",
        f"gradientCheckpointing is {now.gradient_checkpointing}",
        f"offload is [{', '.join(now.offload)}]" if now.offload else _without_offload(job),
    ]
    return ", ".join(parts)


def _at_most_half(job: FineTuneJob, size: int | None) -> int:
    """Return at most half of what ran, always one that divides the global batch, and 1 where the
    trainer had no time to tell."""
    if size is None:
        return 1
    rows = job.spec.training.global_batch_size // processes(job)
    return max(n for n in range(1, min(size // 2, rows) + 1) if rows % n == 0)


def _offload(job: FineTuneJob) -> tuple[Offload, ...]:
    """Return all that may leave the devices: under ZeRO-3 weights too. A CPU is the host itself."""
    if not asks_for_gpus(job):
        return ()
    match job.spec.memory.zero_stage:
        case 0:
            return ()
        case 1 | 2:
            return (Offload.OPTIMIZER,)
        case _:
            return (Offload.OPTIMIZER, Offload.PARAMETERS)


def _without_offload(job: FineTuneJob) -> str:
    if asks_for_gpus(job):
        return f"zeroStage {job.spec.memory.zero_stage} allows no offload"
    return "without GPUs nothing can be offloaded"
