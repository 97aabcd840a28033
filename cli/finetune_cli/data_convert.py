"""`finetune data convert`: files of any layout -> one JSONL file of messages."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from finetune_cli.console import missing, print_out, readable, refusal
from finetune_contract.recipe import DataFormat, FileFormat
from finetune_trainer.data.check import CheckedRow, Counts, DataFile, check_files
from finetune_trainer.data.faults import Findings, in_words
from finetune_trainer.data.reading.written import written
from finetune_trainer.data.rows import Row, TextPair

FormatOption = Annotated[
    DataFormat, typer.Option("--format", help="How rows are written, as data.train[].format.")
]
FileFormatOption = Annotated[
    FileFormat,
    typer.Option("--file-format", help="How files hold rows, as data.train[].fileFormat."),
]


def convert(
    files: Annotated[list[Path], typer.Argument(metavar="IN...", help="Files to read.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The JSONL file to write.")],
    data_format: FormatOption = DataFormat.AUTO,
    file_format: FileFormatOption = FileFormat.AUTO,
) -> None:
    """Write the rows of files as messages, or as prompt and completion where all are such texts.

    A row that can not be learned from ends it with exit code 3, and nothing is written.

    Example: `finetune data convert alpaca.json sharegpt.jsonl -o train.jsonl`
    """
    partial = output.with_name(f".{output.name}.partial")
    try:
        with readable(str(output)):
            found = [DataFile.counted(str(p), p, data_format, file_format) for p in files]
            forms, findings, counts = _write(found, partial)
            if len(forms) > 1 and not findings.fatal:  # a file has one
                _, findings, counts = _write(found, partial, as_messages=True)
        if findings.fatal:
            raise refusal("\n".join(map(str, findings.shown)))
        os.replace(partial, output)
    except ModuleNotFoundError as error:
        raise missing(f"these files need {error.name}", "trainer") from None
    finally:
        partial.unlink(missing_ok=True)
    if findings.ignored:
        print_out(f"ignored: {in_words(findings.ignored)}")
    print_out(f"{output}: {sum(one.good for one in counts):,} rows")


def _write(
    files: Sequence[DataFile], path: Path, *, as_messages: bool = False
) -> tuple[set[type[Row]], Findings, tuple[Counts, ...]]:
    """Write rows, texts `as_messages` too; return which kinds of rows there are, what was found and
    how many are good."""
    findings = Findings()
    forms: set[type[Row]] = set()
    with path.open("w", encoding="utf-8") as out:

        def accept(file: DataFile, checked: CheckedRow) -> None:
            row = checked.row
            forms.add(type(row))
            if as_messages and isinstance(row, TextPair):
                row = row.dialogue()
            out.write(json.dumps(written(row), ensure_ascii=False) + "\n")

        counts = check_files(files, findings, accept)
    return forms, findings, counts
