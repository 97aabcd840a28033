"""What every part of a run is told of it: passed whole."""

from __future__ import annotations

from dataclasses import dataclass

from finetune_contract.resolved import Resolved
from finetune_contract.runconfig import RunConfig
from finetune_trainer.course.progress import Reporter
from finetune_trainer.process.distributed import Ranks
from finetune_trainer.process.stopping import Stop


@dataclass(frozen=True)
class Run:
    """A rank's run. What the job leaves to the trainer is still open in `config.layout`."""

    config: RunConfig
    ranks: Ranks
    reporter: Reporter
    stop: Stop

    def settled(self, resolved: Resolved) -> ResolvedRun:
        """Return the run with what was left open settled."""
        return ResolvedRun(self.config, self.ranks, self.reporter, self.stop, resolved)


@dataclass(frozen=True)
class ResolvedRun(Run):
    """A run whose micro-batch, ZeRO stage, checkpointing and packing are settled."""

    resolved: Resolved
