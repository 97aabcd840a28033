"""What the operator makes of a job and of what it sees: no cluster, no clock, no mocks.

README.md beside this says how a case is written. `UPDATE_GOLDEN=1 pytest tests/golden` writes what
comes out anew; read the difference before you commit it.
"""

import os
from pathlib import Path

import pytest

from finetune_api.crd import schema
from finetune_api.status import FineTuneJobStatus
from kube_schema.structural import validate
from support.operator.backends import TWO_OBJECTS
from support.operator.golden_cases import (
    CASES,
    SHAPES,
    Json,
    applied,
    case_path,
    decision_and_status,
    deleted,
    dump,
    given,
    in_full,
    in_other_words,
    load,
    outcome,
    shape_path,
    status,
)

BREAK = "---\n"


def check(path: Path, text: str) -> None:
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text)
    assert path.read_text() == text, f"{path} differs; UPDATE_GOLDEN=1 writes it anew"


@pytest.mark.parametrize("name", SHAPES)
def test_objects_in_full(name: str) -> None:
    check(shape_path(name), dump(in_full(name)))


@pytest.mark.parametrize("case", CASES)
def test_objects_and_status(case: str) -> None:
    path = case_path(case)
    asked = path.read_text().partition(BREAK)[0]
    check(path, asked + BREAK + dump(outcome(case)))


@pytest.mark.parametrize("case", CASES)
def test_the_status_can_be_stored(case: str) -> None:
    body = {**given(case)["job"], "status": status(case)}
    errors = [e for e in validate(schema(), body) if e.path.startswith("status")]
    assert errors == []


@pytest.mark.parametrize("case", CASES)
def test_the_outcome_of_the_outcome_is_the_same(case: str) -> None:
    """With the status stored and nothing else changed, a second look changes nothing."""
    job, observed, now = load(case)
    again = job.model_copy(update={"status": FineTuneJobStatus.model_validate(status(case))})
    assert decision_and_status(again, observed, now)[1] == status(case)


@pytest.mark.parametrize("case", CASES)
def test_another_backend_changes_words_and_its_own_objects_alone(case: str) -> None:
    assert status(case, TWO_OBJECTS) == in_other_words(status(case))
    usual = with_templates(in_other_words(names(applied(case))))
    assert names(applied(case, TWO_OBJECTS)) == usual
    usual = with_templates(in_other_words(deleted(case)))
    assert sorted(deleted(case, TWO_OBJECTS)) == sorted(usual)


def names(objects: list[Json]) -> list[str]:
    return [f"{body['kind']}/{body['metadata']['name']}" for body in objects]


def with_templates(named: list[str]) -> list[str]:
    """Put its template before each workload, by kind and name."""
    pairs = [(kind, name) for kind, _, name in (one.partition("/") for one in named)]
    both = {TWO_OBJECTS.workload: ["TrainTemplate", TWO_OBJECTS.workload]}
    return [f"{kind}/{name}" for own, name in pairs for kind in both.get(own, [own])]
