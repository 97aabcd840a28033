"""The files of spec.data.train -> one encoded dataset, or every fault found in them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from finetune_contract.recipe import DataFormat
from finetune_trainer.data.encode import EncodedRow, Encoder
from finetune_trainer.data.faults import Faults, RowError
from finetune_trainer.data.rows import Row, detect_format, parse_line, parse_row

UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
ROWS_PER_REPORT = 256


@dataclass(frozen=True)
class DataFile:
    """One JSONL file that lies on this machine's disk."""

    uri: str
    path: Path
    format: DataFormat


@dataclass(frozen=True)
class Dataset:
    """Rows one after the other: tokens int32 [T], learned bool [T], offsets int64 [rows + 1]."""

    tokens: npt.NDArray[np.int32]
    learned: npt.NDArray[np.bool_]
    offsets: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def row(self, index: int) -> EncodedRow:
        """Return one row, without a copy."""
        span = slice(int(self.offsets[index]), int(self.offsets[index + 1]))
        return EncodedRow(self.tokens[span], self.learned[span])


def count_rows(path: Path) -> tuple[int, str]:
    """Return a file's number of lines and its `sha256:<hex>`."""
    digest, rows = hashlib.sha256(), 0
    with path.open("rb") as file:
        for line in file:
            digest.update(line)
            rows += 1
    return rows, f"sha256:{digest.hexdigest()}"


def encode_files(
    files: Sequence[DataFile],
    encoder: Encoder,
    sequence_length: int,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> Dataset:
    """Check and encode every row; raise DataInvalid with the faults if there is one."""
    faults = Faults()
    rows: list[EncodedRow] = []
    seen = 0
    for file in files:
        for line, row in _checked_rows(file, faults):
            try:
                rows.append(_encode(row, encoder, sequence_length))
            except RowError as error:
                faults.add(file.uri, line, str(error))
            seen += 1
            if seen % ROWS_PER_REPORT == 0:
                on_rows(seen)
    faults.raise_if_any()
    on_rows(seen)
    lengths = [len(row.tokens) for row in rows]
    return Dataset(
        tokens=np.concatenate([row.tokens for row in rows]),
        learned=np.concatenate([row.learned for row in rows]),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
    )


def _encode(row: Row, encoder: Encoder, sequence_length: int) -> EncodedRow:
    encoded = encoder.encode(row)
    if len(encoded.tokens) > sequence_length:
        raise RowError(
            f"has {len(encoded.tokens)} tokens, more than training.sequenceLength {sequence_length}"
        )
    return encoded


def _checked_rows(file: DataFile, faults: Faults) -> Iterator[tuple[int, Row]]:
    """Yield the good rows of a file with their lines; note the others."""
    data_format: DataFormat | None = None if file.format is DataFormat.AUTO else file.format
    line = 0
    with file.path.open("rb") as lines:
        if lines.read(2) in UTF16_MARKS:
            faults.add(file.uri, None, "is UTF-16; save the file as UTF-8")
            return
        lines.seek(0)
        for line, text in enumerate(lines, start=1):
            try:
                value = parse_line(text)
                if data_format is None:
                    data_format = detect_format(value)
                yield line, parse_row(value, data_format)
            except RowError as error:
                faults.add(file.uri, line, str(error))
    if line == 0:
        faults.add(file.uri, None, "is empty")
