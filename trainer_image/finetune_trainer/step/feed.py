"""What a run's optimizer steps are made of: the seam between the loop and a method's data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from finetune_contract.checkpoint import TrainingState
from finetune_trainer.batch.micro_batch import MicroBatch
from finetune_trainer.step.engine import StepOutcome
from finetune_trainer.step.optimizer_state import Tensors


@dataclass(frozen=True)
class StepBatch:
    """One rank's micro-batches of an optimizer step; the numbers are of all ranks."""

    micro_batches: tuple[MicroBatch, ...]
    tokens: int
    learned: int
    normaliser: float  # what the step's summed loss is divided by


EMPTY = StepBatch((), tokens=0, learned=0, normaliser=0)  # all of the step's rows are left out


class Feed(ABC):
    """The batches of a run, of which all ranks ask in the same order.

    `reward` is the mean total of the completions last learned from; None without rewards. The
    defaults are those of a feed that the step's number tells all.
    """

    reward: float | None = None

    @property
    @abstractmethod
    def steps(self) -> int:
        """Return the optimizer steps of the whole run."""

    @abstractmethod
    def batch(self, state: TrainingState, stops: Callable[[], bool]) -> StepBatch | None:
        """Return what the step after `state` learns from; None where a stop left it unmade.

        Of EMPTY nothing is learned: the step counts, and nothing else changes.
        `stops` answers all ranks alike.
        """

    @abstractmethod
    def rows(self, rank: int, micro_batch: int) -> str:
        """Return in words which rows of the data a micro-batch of the last batch holds."""

    def stepped(self, state: TrainingState) -> TrainingState:
        """Return the state after the last batch's step with the method's own counts in it."""
        return state

    def metrics(self, outcome: StepOutcome) -> dict[str, float]:
        """Return what is to be told of the last batch's step beside loss and gradient norm."""
        return {}

    def save(self) -> Tensors:
        """Return on rank 0 what a checkpoint needs to go on with steps already begun."""
        return {}

    def resume(self, state: TrainingState, saved: Tensors) -> None:  # noqa: B027
        """Go on after `state` with what rank 0 has of `save`."""
