"""A run between two optimizer steps, in host memory, and the files of a checkpoint it becomes.

`state.safetensors` holds `weight.NAME`, and `exp_avg.NAME` and `exp_avg_sq.NAME` under AdamW, each
whole and fp32 by the PEFT model's names, and `updates`, the count that Adam corrects its bias by.
`best.safetensors` holds `weight.NAME` of the best evaluation so far. `rollouts.safetensors` holds
the completions that further steps are to be taken on, by names of the method's own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from finetune_contract.checkpoint import TrainingState
from finetune_trainer.course.telemetry import METRICS
from finetune_trainer.step.optimizer_state import Moments, Tensors

STATE = "state.safetensors"
BEST = "best.safetensors"
ROLLOUTS = "rollouts.safetensors"
WEIGHT = "weight"
UPDATES = "updates"


@dataclass(frozen=True)
class Snapshot:
    """What a run needs to go on."""

    state: TrainingState
    weights: Tensors
    moments: Moments
    best: Tensors = field(default_factory=dict)  # empty unless the best adapter is published
    rollouts: Tensors = field(default_factory=dict)  # of any dtype; what the method's feed saves
    history: bytes = b""  # metrics.jsonl

    @classmethod
    def beginning(cls) -> Snapshot:
        """Return what a run without a checkpoint goes on from."""
        return cls(TrainingState(step=0, supervised_tokens=0, loss=0.0), {}, Moments())

    def shapes(self) -> dict[str, torch.Size]:
        """Return the shapes of the weights."""
        return {name: tensor.shape for name, tensor in self.weights.items()}

    def save(self, directory: Path) -> None:
        """Write the files of a checkpoint, all but its manifest."""
        tensors = _prefixed(WEIGHT, self.weights)
        for kind, values in self.moments.kinds.items():
            tensors |= _prefixed(kind, values)
        tensors[UPDATES] = torch.tensor(self.moments.updates)
        save_file(tensors, directory / STATE)
        if self.best:
            save_file(_prefixed(WEIGHT, self.best), directory / BEST)
        if self.rollouts:
            save_file(self.rollouts, directory / ROLLOUTS)
        if self.history:
            (directory / METRICS).write_bytes(self.history)

    @classmethod
    def load(cls, state: TrainingState, directory: Path) -> Snapshot:
        """Read the files of a checkpoint."""
        kinds = _by_kind(load_file(directory / STATE))
        updates = kinds.pop(UPDATES)[""]
        best, history = directory / BEST, directory / METRICS
        rollouts = directory / ROLLOUTS
        return cls(
            state=state,
            weights=kinds.pop(WEIGHT),
            moments=Moments(int(updates), kinds),
            best=_by_kind(load_file(best))[WEIGHT] if best.exists() else {},
            rollouts=load_file(rollouts) if rollouts.exists() else {},
            history=history.read_bytes() if history.exists() else b"",
        )


def _prefixed(kind: str, tensors: Tensors) -> Tensors:
    return {f"{kind}.{name}": tensor.contiguous() for name, tensor in tensors.items()}


def _by_kind(tensors: Tensors) -> dict[str, Tensors]:
    kinds: dict[str, Tensors] = {}
    for key, tensor in tensors.items():
        kind, _, name = key.partition(".")
        kinds.setdefault(kind, {})[name] = tensor
    return kinds
