"""What a job says of its data: files, forms, columns, method and length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from finetune_cli.console import refusal
from finetune_cli.job_files import jobs_in, parsed, read_documents
from finetune_contract.recipe import ChatTemplate, DataSource, MethodType, TemplateSetting

SUFFIXES = (".yaml", ".yml")
_FILE = "file://"


@dataclass(frozen=True)
class Local:
    """A file on this machine that a source of a job stands for."""

    path: Path
    source: DataSource


@dataclass(frozen=True)
class JobData:
    """The data of a job, and how it reads it."""

    method: MethodType
    sequence_length: int
    max_tokens: int
    columns: dict[str, str]
    train: list[Local]
    held_out: list[Local]
    chat_template: ChatTemplate | None = None
    template_settings: dict[str, TemplateSetting] = field(default_factory=dict)


def job_data(path: Path, given: Sequence[Path], held_out: Sequence[Path]) -> JobData:
    """Return what a job says of its data; files that are given stand for its own.

    They are `given` to train on, in order, and `held_out` to evaluate on.
    """
    found = read_documents(path)
    jobs = jobs_in(found)
    if len(jobs) != 1:
        raise refusal(f"{found.name}: holds {len(jobs)} FineTuneJobs; give one")
    spec = parsed(found, jobs[0]).spec
    evaluated = spec.data.eval or ()
    grpo = spec.method.grpo
    return JobData(
        spec.method.type,
        spec.training.sequence_length,
        grpo.rollout.max_tokens if grpo else 1,
        spec.data.columns.model_dump(exclude_none=True) if spec.data.columns else {},
        _locals(path, given, spec.data.train),
        _locals(path, held_out, evaluated),
        spec.model.chat_template,
        spec.model.chat_template_kwargs or {},
    )


def _locals(job: Path, given: Sequence[Path], sources: Sequence[DataSource]) -> list[Local]:
    if not given:
        return [_local(job, source) for source in sources]
    if len(given) != len(sources):
        raise refusal(f"{job}: names {len(sources)} such files, but {len(given)} are given")
    return [Local(path, source) for path, source in zip(given, sources, strict=True)]


def _local(job: Path, source: DataSource) -> Local:
    """Return a source that is a file of this machine; exit with code 3 for any other."""
    if not source.uri.startswith(_FILE):
        raise refusal(
            f"{source.uri} is not on this machine; give the files to train on after the job, "
            f"those to evaluate on by --eval: finetune data check {job} FILE..."
        )
    return Local(Path(source.uri.removeprefix(_FILE)), source)
