"""Every rule of the API refuses its bad file by field, and good files pass with their defaults."""

import copy
from pathlib import Path

import pytest

from finetune_api.validation import known_part, parse, reread, validate
from finetune_api.yaml_text import load_documents

JOBS = Path(__file__).parents[2] / "jobs"


def _load(path: Path) -> dict:
    (body,) = load_documents(path.read_text())
    return body


def _expectation(path: Path) -> tuple[str, str]:
    field, text = path.read_text().splitlines()[:2]
    return field.removeprefix("# refused: "), text.removeprefix("# because: ")


@pytest.mark.parametrize("path", sorted(JOBS.glob("bad/*.yaml")), ids=lambda p: p.stem)
def test_bad_job_is_refused_by_field(path: Path) -> None:
    field, text = _expectation(path)
    errors = validate(_load(path))
    assert [e.path for e in errors if text in str(e)] == [field]


@pytest.mark.parametrize(
    "path", sorted(JOBS.glob("bad/*uri*with-*.yaml")) + sorted(JOBS.glob("bad/*-with-keys.yaml"))
)
def test_what_may_be_a_secret_is_not_shown(path: Path) -> None:
    assert "word" not in " ".join(map(str, validate(_load(path)))).replace("password", "")


@pytest.mark.parametrize("path", sorted(JOBS.glob("good/*.yaml")), ids=lambda p: p.stem)
def test_good_job_is_accepted(path: Path) -> None:
    body = _load(path)
    assert validate(body) == []
    assert parse(body).name == body["metadata"]["name"]


@pytest.mark.parametrize("path", sorted(JOBS.glob("good/*.yaml")), ids=lambda p: p.stem)
def test_a_body_that_is_read_stays_as_it_was(path: Path) -> None:
    body = _load(path)
    as_it_was = copy.deepcopy(body)
    assert parse(body) == reread(body)
    extended = {**body, "spec": {**body["spec"], "newer": {"field": 1}}}
    assert known_part(extended) == (body, ["spec.newer"])
    assert extended["spec"]["newer"] == {"field": 1}
    assert body == as_it_was
