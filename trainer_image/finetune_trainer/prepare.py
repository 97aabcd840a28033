"""The data of a run: checked and encoded before weights are fetched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune_contract.runconfig import RunConfig
from finetune_trainer.data.dataset import DataFile, Dataset, encode_files
from finetune_trainer.data.encode import Encoder
from finetune_trainer.distributed import Ranks
from finetune_trainer.model import load_tokenizer
from finetune_trainer.progress import Reporter


@dataclass(frozen=True)
class Prepared:
    """The encoded rows to train and to evaluate on."""

    train: Dataset
    eval: Dataset | None
    skipped: int


def prepare(
    config: RunConfig,
    files: Sequence[DataFile],
    model_directory: Path,
    ranks: Ranks,
    reporter: Reporter,
) -> Prepared:
    """Return the data on every rank; all ranks must call it. `files` lie on rank 0's disk."""

    def encode() -> Dataset:
        encoder = Encoder(load_tokenizer(model_directory))
        return encode_files(files, encoder, config.recipe.training.sequence_length, reporter.reach)

    return Prepared(ranks.lead(encode), None, 0)
