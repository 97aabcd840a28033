"""The table of findings is complete, and the docs have every line of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune_trainer.data.faults import Fault, Kind

DOCS = Path(__file__).parents[4] / "docs" / "data.md"


@pytest.mark.parametrize("kind", Kind)
def test_the_docs_have_every_kind(kind: Kind) -> None:
    assert f"| `{kind}` | {kind.severity} | {kind.meaning} |\n" in DOCS.read_text()


def test_the_docs_have_no_other_kind() -> None:
    lines = DOCS.read_text().splitlines()
    assert sum(line.startswith("| `") for line in lines) == len(Kind) >= 25


def test_a_fault_tells_where() -> None:
    assert str(Fault("s3://d/a", 3, Kind.BAD_JSON, "is not JSON")) == "s3://d/a row 3: is not JSON"
    assert str(Fault("s3://d/a", None, Kind.EMPTY_FILE, "is empty")) == "s3://d/a: is empty"
