"""What a test publishes under, where what it says of the training does not matter."""

from __future__ import annotations

from pathlib import Path

from finetune_contract.artifact import (
    DatasetIdentity,
    ModelIdentity,
    Provenance,
    TrainingSummary,
)

PROVENANCE = Provenance(
    recipe_digest="sha256:" + "1" * 64,
    model=ModelIdentity(uri="hf://org/name", revision="abc"),
    datasets=(DatasetIdentity(uri="s3://d/a.jsonl", sha256="sha256:" + "2" * 64, rows=3),),
)
RUN = "c0ffee"  # a start of an attempt, where it does not matter which
SUMMARY = TrainingSummary(steps=4, published_step=4, supervised_tokens=99, final_loss=0.5)


def run_directory(output: Path, attempt: int = 1) -> Path:
    """Return where an attempt of the job uid-1 has written that was started once."""
    [found] = (output / f"runs/uid-1/a{attempt}").iterdir()
    return found
