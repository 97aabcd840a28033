"""The table of findings is complete, and the docs have every line of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune_trainer.data.faults import (
    LONGEST_KEY,
    MOST_KEYS,
    OTHER_KEYS,
    Fault,
    Findings,
    Kind,
    Severity,
    in_words,
)
from finetune_trainer.data.reading.fields import ROW_FIELDS, TURN_FIELDS, Foreign

DOCS = Path(__file__).parents[4] / "docs" / "data.md"


@pytest.mark.parametrize("kind", Kind)
def test_the_docs_have_every_kind(kind: Kind) -> None:
    assert f"| `{kind}` | {kind.severity} | {kind.meaning} |\n" in DOCS.read_text()


def test_the_docs_have_no_other_kind() -> None:
    lines = DOCS.read_text().splitlines()
    severities = tuple(f"| {severity} |" for severity in Severity)
    kinds = [line for line in lines if any(severity in line for severity in severities)]
    assert len(kinds) == len(Kind) >= 25


@pytest.mark.parametrize("field", [*TURN_FIELDS.values(), *ROW_FIELDS.values()])
def test_the_docs_have_every_field_of_other_tools(field: Foreign) -> None:
    assert f"| `{field.name}` | {field.tools} | {field.meaning} |\n" in DOCS.read_text()


def test_ignored_keys_are_counted_within_bounds() -> None:
    findings = Findings()
    for number in range(MOST_KEYS + 5):
        findings.ignore(("id", f"key {number}"))
    assert findings.ignored["id"] == MOST_KEYS + 5
    assert findings.ignored[OTHER_KEYS] == 6
    assert in_words({"b": 2, "a": 2, "id": 1000}) == "id 1,000, a 2, b 2"
    findings = Findings()
    findings.ignore(("x" * 99 + "\x1b",))
    assert [*findings.ignored] == ["x" * (LONGEST_KEY - 1) + "…"]


def test_a_fault_tells_where() -> None:
    assert str(Fault("s3://d/a", 3, Kind.BAD_JSON, "is not JSON")) == "s3://d/a row 3: is not JSON"
    assert str(Fault("s3://d/a", None, Kind.EMPTY_FILE, "is empty")) == "s3://d/a: is empty"
