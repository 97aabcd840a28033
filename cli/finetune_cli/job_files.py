"""Read FineTuneJobs from a file or from stdin."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import typer
import yaml

from finetune_api.job import KIND
from finetune_api.yaml_text import load_documents
from finetune_cli.console import INVALID_FILE, print_error

STDIN = Path("-")


def read_jobs(path: Path) -> list[dict[str, Any]]:
    """Return every FineTuneJob in the file; other kinds beside them are passed over.

    Exits with code 3 and says where, if the file can not be read, is no YAML, or holds no job.
    """
    name = "stdin" if path == STDIN else str(path)
    try:
        text = sys.stdin.read() if path == STDIN else path.read_text(encoding="utf-8")
        documents = load_documents(text)
    except OSError as error:
        raise _refuse(f"{name}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise _refuse(f"{name}: is not UTF-8 text (byte {error.start})") from None
    except yaml.YAMLError as error:
        raise _refuse(f"{name}: is not YAML: {error}") from None
    others = {d.get("kind") for d in documents if isinstance(d, dict)} - {KIND}
    jobs = [d for d in documents if not isinstance(d, dict) or d.get("kind") in (KIND, None)]
    if not jobs:
        found = f"; it holds {', '.join(map(str, sorted(others, key=str)))}" if others else ""
        raise _refuse(f"{name}: holds no {KIND}{found}")
    return jobs


def _refuse(message: str) -> typer.Exit:
    print_error(message)
    return typer.Exit(INVALID_FILE)
