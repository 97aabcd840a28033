"""Files -> one encoded dataset on disk, made once per node and used by every later attempt.

A dataset's directory is named by a digest of all that decides its bytes. It appears under a file
lock and by a rename, so what is there is whole.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Container
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from finetune_contract.model import canonical_json, sha256_digest
from finetune_contract.reasons import Reason
from finetune_contract.recipe import BadRows
from finetune_trainer.data import dataset, encode
from finetune_trainer.data.check import (
    CheckedRow,
    DataFile,
    OnLines,
    Reader,
    check_files,
)
from finetune_trainer.data.dataset import DatasetWriter, Index, read_index
from finetune_trainer.data.encode import EncodedRow, Encoder
from finetune_trainer.data.faults import Fault, Findings
from finetune_trainer.data.reading.reader import RowReader
from finetune_trainer.data.rows import Row
from finetune_trainer.data.template import Tokenizer
from finetune_trainer.process.ending import is_disk_full
from finetune_trainer.process.errors import Failure
from finetune_trainer.store.appearing import alone, appearing, own_directory, remove
from finetune_trainer.store.storage import hash_file

log = logging.getLogger(__name__)

SKIPPED = "skipped_rows.jsonl"
TOKENIZER_FILES = (".json", ".jinja", ".txt", ".model")
LIBRARIES = ("tokenizers", "transformers", "jinja2")


class Encodes(Protocol):
    """Makes tokens of rows."""

    def encode(self, row: Row) -> EncodedRow:
        """Return the tokens of a row; raise RowError if it can not be trained on."""
        ...


@dataclass(frozen=True)
class Form:
    """How a method reads rows, encodes each to at most `longest` tokens, and keeps them.

    `encoder` is given the tokenizer, `longest` and, where it is known, how many tokens the model
    has. `decides` names what else changes the bytes that are kept.
    """

    longest: int
    decides: tuple[Any, ...] = ()
    reader: Callable[..., Reader] = RowReader  # (format, columns by what they are)
    encoder: Callable[[Tokenizer, int, int | None], Encodes] = Encoder
    writer: Callable[[Path], DatasetWriter] = DatasetWriter


@dataclass(frozen=True)
class Encoding:
    """All that decides a dataset: files, form, the tokenizer's directory, what is left out."""

    files: tuple[DataFile, ...]
    form: Form
    model_directory: Path
    on_bad_row: BadRows
    against: str | None = None  # the digest of the eval data, whose rows must not be among these

    def digest(self) -> str:
        """Return the name of the dataset, 64 hexadecimal digits."""
        return sha256_digest(canonical_json(self.decides()).encode()).removeprefix("sha256:")

    def decides(self) -> dict[str, Any]:
        """Return all that its name is a digest of."""
        tokenizer = sorted(
            path for path in self.model_directory.iterdir() if path.suffix in TOKENIZER_FILES
        )
        return {
            "encoder": encode.VERSION,
            "dataset": dataset.VERSION,
            "libraries": [version(name) for name in LIBRARIES],
            "files": [[f.uri, f.sha256, f.format, f.file_format] for f in self.files],
            "tokenizer": [[path.name, hash_file(path)] for path in tokenizer],
            "sequence_length": self.form.longest,
            "on_bad_row": self.on_bad_row,
            "against": self.against,
            "form": self.form.decides,
        }


def encode_once(
    encoding: Encoding,
    root: Path,
    load_encoder: Callable[[], Encodes],
    eval_keys: Container[int],
    on_lines: OnLines,
) -> Path:
    """Return the dataset's directory below `root`; raise DataInvalid with what is wrong."""
    digest = encoding.digest()
    directory = root / digest
    try:
        own_directory(root)
        with alone(root / f"{digest}.lock"):
            if directory.is_symlink() or read_index(directory) is None:
                _sweep(root, digest)
                with appearing(directory) as partial:
                    partial.mkdir()
                    _encode(encoding, partial, load_encoder(), eval_keys, on_lines)
    except OSError as error:
        if not is_disk_full(error):
            raise
        raise Failure(Reason.DISK_FULL, f"{root} has no room for the encoded rows") from error
    on_lines(sum(file.lines for file in encoding.files))
    return directory


def _encode(
    encoding: Encoding,
    directory: Path,
    encoder: Encodes,
    eval_keys: Container[int],
    on_lines: OnLines,
) -> None:
    """Check and encode every row into a directory."""

    def listen(fault: Fault) -> None:
        if findings.skips(fault):
            row = {"uri": fault.uri, "row": fault.row, "reason": fault.reason}
            skipped.write(json.dumps(row) + "\n")

    def accept(file: DataFile, checked: CheckedRow) -> None:
        encoded = encoder.encode(checked.row)
        writer.add(encoded, checked.key, checked.line, checked.place)
        findings.warn(checked.uri, checked.line, encoded.warnings)

    findings = Findings(encoding.on_bad_row, listen)
    with (
        (directory / SKIPPED).open("w") as skipped,
        closing(encoding.form.writer(directory)) as writer,
    ):
        counts = check_files(
            encoding.files,
            findings,
            accept,
            reader=encoding.form.reader,
            scratch=directory,
            eval_keys=eval_keys,
            on_lines=on_lines,
        )
        findings.raise_if_any()
        for warning in findings.warnings:
            log.warning("%s", warning)
        good, bad = zip(*[(file.good, file.bad) for file in counts], strict=True)
        told = findings.warned, dict(findings.ignored)
        writer.finish(Index(good, bad, writer.tokens, findings.skipped, *told))


def _sweep(root: Path, digest: str) -> None:
    """Remove what a killed attempt left; whoever holds the lock is the only one at work."""
    for left in [root / digest, *root.glob(f".{digest}.*")]:
        remove(left)
