"""Encoded prompts as files: a dataset of their tokens, and beside it each row's document.

`documents` holds JSON, {"prompt", "columns"}, one after the other, `document_offsets` (int64, one
more than rows) where each begins, and `columns.json` the names of all columns. The page cache holds
what is in use, so rows may carry more than memory holds.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from finetune_contract.rewards import Reward
from finetune_trainer.data.dataset import (
    DOCUMENT_OFFSETS,
    DOCUMENTS,
    Dataset,
    DatasetWriter,
    Index,
)
from finetune_trainer.data.encode import EncodedRow
from finetune_trainer.data.encoding import Form
from finetune_trainer.methods.grpo.prompts.encoder import EncodedPrompt, PromptEncoder
from finetune_trainer.methods.grpo.prompts.rows import VERSION, columns_needed, prompt_reader

COLUMNS = "columns.json"


@dataclass(frozen=True)
class Prompts:
    """Prompts by the index of their row. `columns` names what any row has beside its prompt."""

    data: Dataset
    columns: tuple[str, ...]
    documents: npt.NDArray[np.uint8]
    offsets: npt.NDArray[np.int64]

    def tokens(self, index: int) -> npt.NDArray[np.int32]:
        """Return a prompt's token ids."""
        return self.data.row(index).tokens

    def document(self, index: int) -> dict[str, Any]:
        """Return {"prompt": text or messages, "columns": {...}} of a row."""
        start, end = int(self.offsets[index]), int(self.offsets[index + 1])
        found: dict[str, Any] = json.loads(self.documents[start:end].tobytes())
        return found


class PromptWriter(DatasetWriter):
    """Appends prompts to a directory's files."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, (DOCUMENTS, DOCUMENT_OFFSETS))
        self._written = 0
        self._columns: set[str] = set()
        self._append(DOCUMENT_OFFSETS, np.zeros(1, dtype=np.int64))

    def add(self, row: EncodedRow, key: int, line: int, place: int) -> None:
        """Append a prompt that stands in a line of its file, from 1, and is its row `place`."""
        assert isinstance(row, EncodedPrompt), "encoded by PromptEncoder"
        super().add(row, key, line, place)
        self._written += len(row.document)
        self._columns.update(json.loads(row.document)["columns"])
        self._append(DOCUMENTS, np.frombuffer(row.document, dtype=np.uint8))
        self._append(DOCUMENT_OFFSETS, np.array([self._written], dtype=np.int64))

    def finish(self, index: Index) -> None:
        """Write the index, without which the directory holds no dataset."""
        (self._directory / COLUMNS).write_text(json.dumps(sorted(self._columns)))
        super().finish(replace(index, documents=self._written))


def prompt_form(longest: int, rewards: Sequence[Reward]) -> Form:
    """Return how prompts for these rewards are read and kept."""
    needed = columns_needed(rewards)
    return Form(
        longest,
        decides=("prompts", VERSION, sorted(needed)),
        reader=lambda form, columns=None: prompt_reader(form, needed, columns),
        encoder=PromptEncoder,
        writer=PromptWriter,
    )


def open_prompts(data: Dataset) -> Prompts:
    """Return the prompts that a dataset's directory holds, mapped into memory."""
    directory = data.directory
    return Prompts(
        data=data,
        columns=tuple(json.loads((directory / COLUMNS).read_bytes())),
        documents=np.memmap(directory / DOCUMENTS, dtype=np.uint8, mode="r"),
        offsets=np.memmap(directory / DOCUMENT_OFFSETS, dtype=np.int64, mode="r"),
    )
