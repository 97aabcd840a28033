"""`finetune validate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from finetune_api.validation import validate as validate_body
from finetune_cli.console import INVALID_FILE, print_error, print_out, print_warning
from finetune_cli.job_files import Documents, jobs_in, read_documents

Files = Annotated[
    list[Path], typer.Argument(metavar="FILE...", help="YAML files with FineTuneJobs; - is stdin.")
]


def validate(files: Files) -> None:
    """Check FineTuneJobs without a cluster.

    Applies the same schema, defaults and rules as the API server, and refuses the same fields in
    the same words, all at once, each with its line and with what to write instead. It warns of what
    is allowed and hardly meant. What a cluster's operator allows (its chart's policy and egress) it
    does not know. Exit code 0: every job is valid; 3: at least one is not.
    """
    refused = 0
    for path in files:
        found = read_documents(path)
        for body in jobs_in(found):
            refused += _report(found, body)
    if refused:
        raise typer.Exit(INVALID_FILE)


def _report(found: Documents, body: Any) -> bool:
    errors = validate_body(body)
    metadata = body.get("metadata") if isinstance(body, dict) else None
    name = metadata.get("name", "?") if isinstance(metadata, dict) else "?"
    if not errors:
        print_out(f"{found.name}: finetunejob/{name} is valid")
    for line in found.refusals(body, errors):
        print_error(line)
    for line in found.warnings(body):
        print_warning(line)
    return bool(errors)
