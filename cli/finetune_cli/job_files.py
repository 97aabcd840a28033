"""Read FineTuneJobs from a file or from stdin."""

from __future__ import annotations

import math
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
import yaml

from finetune_api.doubts import doubts
from finetune_api.job import KIND, FineTuneJob
from finetune_api.remedies import remedied
from finetune_api.validation import InvalidJob, parse
from finetune_api.yaml_text import Place, load_documents, places
from finetune_cli.console import INVALID_FILE, print_error, readable, refusal
from kube_schema.field_errors import FieldError

STDIN = Path("-")


@dataclass(frozen=True)
class Documents:
    """The YAML documents of a file, or of stdin, which can be read only once."""

    name: str  # for messages
    documents: list[Any]
    text: str = ""

    def warnings(self, body: Any) -> list[str]:
        """Return a line for each thing in a body that is hardly what its user wants."""
        return self._lines(body, doubts(body), mark="warning: ")

    def refusals(self, body: Any, errors: list[FieldError], under: str = "") -> list[str]:
        """Return a line for each error of a body: where it stands, what is wrong, what to write.

        `under` is the path at which a document stands in the body, where it is but a part.
        """
        return self._lines(body, errors, under)

    def _lines(
        self, body: Any, errors: list[FieldError], under: str = "", mark: str = ""
    ) -> list[str]:
        found, hidden = self._places(body, under), under[: under.rfind(".") + 1]

        def written(path: str) -> str | None:
            return found[path].written if path in found else None

        lines = []
        for error in remedied(errors, body, written):
            place = _nearest(found, error.path)
            at = (place.line, place.column) if place and error.path else (math.inf, 0)
            where = f"{self.name}:{place.line}:{place.column}" if place else self.name
            lines.append((at, f"{where}: {mark}{str(error).removeprefix(hidden)}"))
        lines.sort(key=lambda line: line[0])
        return [line for _, line in lines]

    def _places(self, body: Any, under: str) -> dict[str, Place]:
        try:
            found = places(self.text)
        except yaml.YAMLError:  # never: it was read
            return {}
        for document, its in zip(self.documents, found, strict=False):
            if document is body or (under and isinstance(document, list)):
                return {_joined(under, path): place for path, place in its.items()}
        return {}


def _joined(under: str, path: str) -> str:
    if not under or not path:
        return under or path
    return f"{under}{path}" if path.startswith("[") else f"{under}.{path}"


def _nearest(found: dict[str, Place], path: str) -> Place | None:
    """Return where a field stands, or what it would be a part of."""
    while path and path not in found:
        path = re.sub(r"(?:\.?[^.\[\]]+|\[\d+\])\Z", "", path)
    return found.get(path)


def read_documents(path: Path) -> Documents:
    """Return the documents; exit with code 3 and say why, if the file can not be read as YAML."""
    name = "stdin" if path == STDIN else str(path)
    with readable(name):
        text = sys.stdin.read() if path == STDIN else path.read_text(encoding="utf-8")
    try:
        return Documents(name, load_documents(text), text)
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


def parsed(found: Documents, body: Any, under: str = "") -> FineTuneJob:
    """Return a job; exit with code 3 and name its wrong fields, if it has any. Where the file holds
    but a part of it, that stands `under` a path, which is not told."""
    try:
        return parse(body)
    except InvalidJob as invalid:
        for line in found.refusals(body, invalid.errors, under):
            print_error(line)
        raise typer.Exit(INVALID_FILE) from None
