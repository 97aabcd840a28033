"""Checkpoints of a run that is not there: states whose numbers tell their step, saved and found."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from finetune_contract.artifact import MANIFEST, Provenance
from finetune_contract.checkpoint import CheckpointRef, TrainingState
from finetune_trainer.checkpoints.keeper import Checkpoints
from finetune_trainer.checkpoints.snapshot import Snapshot
from finetune_trainer.step.optimizer_state import Moments
from finetune_trainer.store.publish import Output
from support.storage.meddled_store import Before, meddled
from support.storage.publications import PROVENANCE, run_directory
from support.trainer.runs import run_config

Start = Callable[..., Checkpoints]


def starter(
    directory: Path,
    on_complete: Callable[[CheckpointRef], None],
    on_trouble: Callable[[str | None], None] = lambda _: None,
) -> Start:
    """Return what starts attempts of the run in a directory, with a provenance and a policy.

    Of an attempt's requests, once it has its claim, `before` is told.
    """

    def start(
        attempt: int = 1,
        provenance: Provenance = PROVENANCE,
        before: Before = lambda request, path: None,
        clock: Callable[[], float] = time.monotonic,
        **policy: Any,
    ) -> Checkpoints:
        layout = run_config(directory, attempt=attempt, checkpoint=policy).layout
        Path(layout.scratch_dir).mkdir(exist_ok=True)
        output = meddled(Output.claim(layout), before)
        return Checkpoints(output, provenance, layout, on_complete, on_trouble, clock)

    return start


def snapshot(step: int) -> Snapshot:
    """Return a state whose every number tells its step."""
    weights = {"a.lora_A.weight": torch.full((2, 3), float(step)), "b": torch.zeros(4)}
    kinds = {"exp_avg": {n: w + 1 for n, w in weights.items()}}
    return Snapshot(
        state=TrainingState(step=step, supervised_tokens=7 * step, loss=0.5, tracking_run="r"),
        weights=weights,
        moments=Moments(step, kinds),
        best={"b": torch.ones(4)},
        history=b'{"step":1}\n',
    )


def saved(checkpoints: Checkpoints, *steps: int) -> None:
    """Save states of these steps, one after the other."""
    for step in steps:
        checkpoints.save(snapshot(step))
        checkpoints.wait()


def place(directory: Path, attempt: int, step: int) -> Path:
    """Return where a checkpoint lies."""
    return run_directory(directory / "out", attempt) / f"checkpoints/{step:08d}"


def present(directory: Path) -> list[tuple[int, int]]:
    """Return attempts and steps of complete checkpoints."""
    found = (directory / "out/runs").rglob(f"checkpoints/*/{MANIFEST}")
    return sorted((int(p.parts[-5][1:]), int(p.parts[-2])) for p in found)


def newest(checkpoints: Checkpoints) -> int | None:
    """Return the step of the newest one that can be gone on from."""
    found = checkpoints.newest(lambda snapshot: True)
    return found.state.step if found else None
