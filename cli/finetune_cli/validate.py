"""`finetune validate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from finetune_api.validation import validate as validate_body
from finetune_cli.console import INVALID_FILE, print_error, print_out
from finetune_cli.job_files import jobs_in, read_documents

Files = Annotated[
    list[Path], typer.Argument(metavar="FILE...", help="YAML files with FineTuneJobs; - is stdin.")
]


def validate(files: Files) -> None:
    """Check FineTuneJobs without a cluster.

    Applies the same schema, defaults and rules as the API server, and refuses the same fields in
    the same words. What a cluster's operator allows (its chart's policy and egress) it does not
    know. Exit code 0: every job is valid; 3: at least one is not.
    """
    refused = 0
    for path in files:
        for body in jobs_in(read_documents(path)):
            refused += _report(path, body)
    if refused:
        raise typer.Exit(INVALID_FILE)


def _report(path: Path, body: Any) -> bool:
    errors = validate_body(body)
    metadata = body.get("metadata") if isinstance(body, dict) else None
    name = metadata.get("name", "?") if isinstance(metadata, dict) else "?"
    if not errors:
        print_out(f"{path}: finetunejob/{name} is valid")
    for error in errors:
        print_error(f"{path}: finetunejob/{name}: {error}")
    return bool(errors)
