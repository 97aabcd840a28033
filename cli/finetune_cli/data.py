"""`finetune data`: what the trainer would say of data files, before anything is uploaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from finetune_cli.console import ERR, INVALID_FILE, OUT, missing, print_out, readable, refusing
from finetune_cli.data_convert import FileFormatOption, FormatOption, convert
from finetune_cli.data_job import SUFFIXES, JobData, job_data
from finetune_contract.recipe import DataFormat, DataSource, FileFormat, MethodType
from finetune_trainer.data.check import CheckedRow, Counts, DataFile, Reader, check_files
from finetune_trainer.data.faults import Fault, Findings, Severity, in_words
from finetune_trainer.methods.registry import method_of
from finetune_trainer.process.errors import Failure

if TYPE_CHECKING:
    from finetune_trainer.data.encoding import Encodes
    from finetune_trainer.methods.base import Method

LISTED = 1000  # faults kept for the output; all are counted
SHOWN = 50  # of them in the table

app = typer.Typer(help="Data files: look at them before a job does.", no_args_is_help=True)


app.command()(convert)


@dataclass
class Report:
    """What was found in all files."""

    files: list[DataFile]
    counts: tuple[Counts, ...] = ()
    faults: list[Fault] = field(default_factory=list)
    findings: Findings = field(default_factory=Findings)

    def listen(self, fault: Fault) -> None:
        """Keep a finding, if not too many are kept."""
        if len(self.faults) < LISTED:
            self.faults.append(fault)

    def to_json(self) -> dict[str, Any]:
        """Return the document of `--json`."""
        return {
            "ok": not self.findings.fatal,
            "files": [
                {"file": file.uri, "rows": counts.rows, "good": counts.good}
                for file, counts in zip(self.files, self.counts, strict=True)
            ],
            "counts": {str(kind): count for kind, count in sorted(self.findings.counts.items())},
            "ignored": dict(self.findings.ignored),
            "faults": [
                {
                    "file": fault.uri,
                    "row": fault.row,
                    "kind": fault.kind,
                    "severity": fault.kind.severity,
                    "reason": fault.reason,
                }
                for fault in self.faults
            ],
        }


@app.command()
def check(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Files to train on, or a job.")
    ],
    eval_files: Annotated[
        list[Path] | None,
        typer.Option("--eval", metavar="FILE", help="File to evaluate on. Repeatable."),
    ] = None,
    data_format: FormatOption = DataFormat.AUTO,
    file_format: FileFormatOption = FileFormat.AUTO,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|NAME",
            help="Also encode the rows with this model's tokenizer: a directory, or the name of "
            "a model in the local Hugging Face cache.",
        ),
    ] = None,
    sequence_length: Annotated[
        int, typer.Option(min=8, help="training.sequenceLength; needs --model.")
    ] = 2048,
    method: Annotated[
        MethodType, typer.Option(help="The method: with GRPO rows are prompts.")
    ] = MethodType.SFT,
    max_tokens: Annotated[
        int, typer.Option(min=1, help="grpo.rollout.maxTokens; needs --method GRPO and --model.")
    ] = 512,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Check data files without a cluster, a GPU or torch.

    Finds what the trainer would refuse, in the same words: file, row and reason. Without --model
    the structure is checked; with it also what only the tokenizer and the chat template can tell,
    such as rows that are too long. Exit code 0: a job would accept the files; 3: it would not.

    A job's file in place of data takes method, lengths, forms, columns and chat template from it,
    and its files of this machine; others are given after it.

    Examples: `finetune data check train.jsonl --eval eval.jsonl`, `finetune data check job.yaml`
    """
    columns: dict[str, str] = {}
    job: JobData | None = None
    if files[0].suffix in SUFFIXES:
        job = job_data(files[0], files[1:], eval_files or [])
        method, columns = job.method, job.columns
        sequence_length, max_tokens = job.sequence_length, job.max_tokens
        train = [_data_file(one.path, one.source) for one in job.train]
        held_out = [_data_file(one.path, one.source) for one in job.held_out]
    else:
        source = DataSource(uri="file:///-", format=data_format, file_format=file_format)
        train = [_data_file(path, source) for path in files]
        held_out = [_data_file(path, source) for path in eval_files or []]
    report = Report([*held_out, *train])
    report.findings = Findings(listener=report.listen)
    with refusing(Failure):
        found, encoder = method_of(method), None
        if model is not None:
            encoder = _encoder(Path(model), found, sequence_length, max_tokens, job)
        reader = partial(found.reader, columns=columns)
        _check(report, train, held_out, reader, encoder)
    if as_json:
        print_out(json.dumps(report.to_json(), indent=2))
    else:
        _show(report)
    if report.findings.fatal:
        raise typer.Exit(INVALID_FILE)


def _data_file(path: Path, source: DataSource) -> DataFile:
    try:
        with readable(str(path)):
            return DataFile.counted(str(path), path, source.format, source.file_format)
    except ModuleNotFoundError as error:
        raise missing(f"{path} needs {error.name}", "trainer") from None


def _encoder(
    directory: Path, method: Method, sequence_length: int, max_tokens: int, job: JobData | None
) -> Encodes:
    """Return what encodes by the model's tokenizer, with the job's own chat template if it has
    one."""
    try:
        from finetune_trainer.model.chat_template import with_template
        from finetune_trainer.model.tokenizer import load_tokenizer, vocabulary_size
        from finetune_trainer.store.sources import read_template

        form = method.plain_form(sequence_length, max_tokens)
    except ModuleNotFoundError as error:
        raise missing(f"--model needs {error.name}", "trainer") from None
    with TemporaryDirectory() as scratch:
        if job is not None:
            template = read_template(job.chat_template, None)
            directory = with_template(directory, template, job.template_settings, Path(scratch))
        return form.encoder(load_tokenizer(directory), form.longest, vocabulary_size(directory))


def _check(
    report: Report,
    train: list[DataFile],
    held_out: list[DataFile],
    reader: Callable[[DataFormat], Reader],
    encoder: Encodes | None,
) -> None:
    """Check the eval files first, as the trainer does: no train row may be among theirs."""
    eval_keys: set[int] = set()

    def accept(file: DataFile, checked: CheckedRow) -> None:
        if encoder is not None:
            warnings = encoder.encode(checked.row).warnings
            report.findings.warn(file.uri, checked.line, warnings)

    def accept_eval(file: DataFile, checked: CheckedRow) -> None:
        accept(file, checked)
        eval_keys.add(checked.key)

    with Progress(console=ERR, transient=True, disable=not ERR.is_terminal) as bar:
        total = sum(file.lines for file in report.files)
        task = bar.add_task("Checking", total=total)

        def on_lines(before: int) -> Callable[[int], None]:
            return lambda lines: bar.update(task, completed=before + lines)

        of_held_out = check_files(
            held_out, report.findings, accept_eval, reader=reader, on_lines=on_lines(0)
        )
        done = sum(file.lines for file in held_out)
        report.counts = of_held_out + check_files(
            train,
            report.findings,
            accept,
            reader=reader,
            eval_keys=eval_keys,
            on_lines=on_lines(done),
        )


def _show(report: Report) -> None:
    if report.faults:
        table = Table("file", "row", "", "kind", "reason")
        for fault in report.faults[:SHOWN]:
            mark = "warning" if fault.kind.severity is Severity.WARNING else "fault"
            row = "" if fault.row is None else str(fault.row)
            table.add_row(escape(fault.uri), row, mark, fault.kind, escape(fault.reason))
        OUT.print(table)
    found = sum(report.findings.counts.values())
    if found > SHOWN:
        print_out(f"and {found - SHOWN:,} more; of each kind:")
        for kind, count in report.findings.counts.most_common():
            print_out(f"  {count:>9,}  {kind}")
    if report.findings.ignored:
        print_out(f"ignored: {in_words(report.findings.ignored)}")
    for file, counts in zip(report.files, report.counts, strict=True):
        print_out(f"{file.uri}: {counts.good:,} of {counts.rows:,} rows can be trained on")
