"""What a newer CRD brings is noted: it neither stops what runs nor starts what is half known."""

import copy
from typing import Any

import pytest

from finetune_operator.job.errors import Stalled
from finetune_operator.job.parse import Parser
from support.operator.jobs import bot_job

Json = Any
RUNNING = {"number": 1, "state": "Running", "startTime": "2026-03-01T12:00:00Z"}
RUNNING |= {"generation": 1, "recipeDigest": "sha256:0", "image": "trainer:1"}


def body(*attempts: Json, **spec: Json) -> Json:
    made = bot_job(**spec)
    made["metadata"] |= {"uid": "u", "namespace": "team", "generation": 1}
    return {**made, "status": {"attempts": list(attempts)}} if attempts else made


NEWER = {"runPolicy": {"suspend": True, "naps": 3}, "dreams": {"electric": True}}


def test_a_job_that_has_begun_goes_on_without_what_is_not_known() -> None:
    noted: list[tuple[Json, list[str]]] = []
    parser = Parser(lambda of, paths: noted.append((of, paths)))
    given = body(RUNNING, **NEWER)
    before = copy.deepcopy(given)
    for _ in range(3):
        job = parser.parse(given)
    assert job.spec.run_policy.suspend
    assert noted == [(given, ["spec.runPolicy.naps", "spec.dreams"])], "once a generation"
    assert given == before


def test_a_job_that_has_not_begun_is_refused_with_the_fields() -> None:
    with pytest.raises(Stalled, match=r"spec\.runPolicy\.naps.*spec\.dreams") as stalled:
        Parser().parse(body(**NEWER))
    assert stalled.value.reason == "InvalidSpec"


def test_what_is_known_and_wrong_stops_a_job_that_has_begun_too() -> None:
    with pytest.raises(Stalled, match="maxAttempts"):
        Parser().parse(body(RUNNING, dreams={}, runPolicy={"maxAttempts": "many"}))


# A rule between fields refuses it, and no field alone is wrong.
BROKEN = {"training": {"epochs": 2, "maxSteps": 5}}


def observed(reason: str = "Running", generation: int = 1, **spec: Json) -> Json:
    """A job whose attempt runs, as an operator has written its status."""
    said = {"type": "Succeeded", "status": "Unknown", "reason": reason}
    said["lastTransitionTime"] = "2026-03-01T12:00:00Z"
    made = body(RUNNING, **spec)
    made["status"] |= {"observedGeneration": generation, "conditions": [said]}
    return made


def test_rules_are_not_checked_again_once_an_attempt_was_made_of_a_generation() -> None:
    parser = Parser()
    assert parser.parse(observed(**BROKEN)).spec.training.max_steps == 5
    assert parser.parse(observed(**BROKEN)).spec.training.max_steps == 5


@pytest.mark.parametrize(
    "unsure",
    [
        body(**BROKEN),
        body(RUNNING, **BROKEN),
        observed(generation=0, **BROKEN),
        observed("InvalidSpec", **BROKEN),
        observed("OperatorError", **BROKEN),
        {**observed(**BROKEN), "status": {**observed()["status"], "attempts": []}},
    ],
)
def test_rules_are_checked_where_nobody_surely_has(unsure: Json) -> None:
    parser = Parser()
    for _ in range(2):
        with pytest.raises(Stalled, match=r"spec\.training"):
            parser.parse(unsure)


def test_a_field_that_is_wrong_by_itself_is_found_in_any_pass() -> None:
    wrong = observed(runPolicy={"maxAttempts": "many"})
    with pytest.raises(Stalled, match=r"spec\.runPolicy\.maxAttempts"):
        Parser().parse(wrong)


def test_what_is_not_known_is_noted_though_the_generation_was_checked_before() -> None:
    noted: list[list[str]] = []
    parser = Parser(lambda of, paths: noted.append(paths))
    for _ in range(2):
        assert parser.parse(observed(**NEWER)).spec.run_policy.suspend
    assert noted == [["spec.runPolicy.naps", "spec.dreams"]]
