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
