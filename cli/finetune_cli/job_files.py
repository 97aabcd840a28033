"""Read FineTuneJobs from a file or from stdin."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
import yaml

from finetune_api.job import KIND, FineTuneJob
from finetune_api.validation import InvalidJob, parse
from finetune_api.yaml_text import load_documents
from finetune_cli.console import INVALID_FILE, print_error, readable, refusal

STDIN = Path("-")


@dataclass(frozen=True)
class Documents:
    """The YAML documents of a file, or of stdin, which can be read only once."""

    name: str  # for messages
    documents: list[Any]


def read_documents(path: Path) -> Documents:
    """Return the documents; exit with code 3 and say why, if the file can not be read as YAML."""
    name = "stdin" if path == STDIN else str(path)
    with readable(name):
        text = sys.stdin.read() if path == STDIN else path.read_text(encoding="utf-8")
    try:
        return Documents(name, load_documents(text))
    except yaml.YAMLError as error:
        raise refusal(f"{name}: is not YAML: {error}") from None


def jobs_in(found: Documents) -> list[dict[str, Any]]:
    """Return every FineTuneJob of a file; other kinds beside them are passed over.

    Exits with code 3 and says what there is, if there is none.
    """
    documents = found.documents
    others = {str(d.get("kind")) for d in documents if isinstance(d, dict)} - {KIND}
    jobs = [d for d in documents if not isinstance(d, dict) or d.get("kind") in (KIND, None)]
    if not jobs:
        held = f"; it holds {', '.join(sorted(others))}" if others else ""
        raise refusal(f"{found.name}: holds no {KIND}{held}")
    return jobs


def parsed(name: str, body: Any, hidden: str = "") -> FineTuneJob:
    """Return a job; exit with code 3 and name its wrong fields, without the `hidden` part of their
    paths, if it has any."""
    try:
        return parse(body)
    except InvalidJob as invalid:
        for error in invalid.errors:
            print_error(f"{name}: {str(error).removeprefix(hidden)}")
        raise typer.Exit(INVALID_FILE) from None
