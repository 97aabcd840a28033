"""Whatever stands in a status, what is read of it can be relied on."""

from typing import Any

import pytest

from finetune_api.status import FineTuneJobStatus
from finetune_operator.job.stored import stored_status
from support.operator.values import at, stamp

Json = Any
ATTEMPT = {
    "number": 1,
    "state": "Running",
    "generation": 1,
    "recipeDigest": "sha256:0",
    "image": "trainer:1",
    "startTime": stamp(0),
}
ENDED = {**ATTEMPT, "state": "Failed", "reason": "Evicted", "message": "why", "endTime": stamp(9)}
CONDITION = {"type": "Ready", "status": "Unknown", "reason": "R", "lastTransitionTime": stamp(3)}
PROGRESS = {
    "attempt": 1,
    "phase": "Train",
    "summary": "Train",
    "done": 1,
    "lastReportTime": stamp(4),
}
CREATED = "2026-02-01T00:00:00Z"


def read(status: Json) -> Json:
    metadata = {"name": "bot", "creationTimestamp": CREATED}
    found = stored_status({"metadata": metadata, "status": status})
    return found.model_dump(mode="json", by_alias=True, exclude_none=True)


WHOLE = {
    "observedGeneration": 3,
    "conditions": [{**CONDITION, "message": "m"}],
    "attempts": [ENDED, {**ATTEMPT, "number": 2}],
    "retry": {"retries": 1, "afterAttempt": 0},
    "rewardCheck": {"state": "Passed", "plan": "p", "failures": 0, "startTime": stamp(0)},
    "progress": PROGRESS,
    "checkpoint": {"uri": "s3://b/c", "step": 4, "attempt": 1},
    "plan": {"workers": 1, "processes": 1, "gpus": 0},
}


def test_what_an_operator_wrote_is_read_as_it_is() -> None:
    assert read(WHOLE) == WHOLE
    assert stored_status({"metadata": {}}) == FineTuneJobStatus()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("observedGeneration", "x"),
        ("observedGeneration", 1e30),
        ("rewardCheck", {"state": "Dancing", "plan": "p"}),
        ("progress", {**PROGRESS, "phase": "Dance"}),
        ("progress", {**PROGRESS, "attempt": -1}),
        ("checkpoint", {"step": 4, "attempt": 1}),
        ("checkpoint", {"uri": "s3://b/c", "step": 2**53, "attempt": 1}),
        ("plan", []),
        ("attempts", 7),
        ("conditions", {"type": "Ready"}),
        ("unheard", {"a": 1}),
    ],
)
def test_a_part_that_is_not_of_its_form_is_left_out_and_the_others_stay(
    field: str, value: Json
) -> None:
    found = read({**WHOLE, field: value})
    others = {k: v for k, v in WHOLE.items() if k != field}
    assert {k: v for k, v in found.items() if k != field} == others


@pytest.mark.parametrize("status", [[], "text", 7, {"attempts": [[]], "conditions": [None]}])
def test_what_is_no_status_is_none(status: Json) -> None:
    assert read(status) == {}


def attempts(*found: Json) -> list[Json]:
    return list(read({"attempts": list(found)}).get("attempts", []))


def test_attempts_stand_in_their_order_each_once() -> None:
    second, third = {**ENDED, "number": 2}, {**ATTEMPT, "number": 3}
    assert attempts(third, ENDED, second, second) == [ENDED, second, third]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (ATTEMPT, "ResultLost"),
        ({**ATTEMPT, "state": "Starting"}, "ResultLost"),
        ({**ENDED, "state": "Stopping"}, "Evicted"),
    ],
)
def test_an_attempt_that_another_followed_is_over(record: Json, reason: str) -> None:
    second = {**ATTEMPT, "number": 2, "startTime": stamp(20)}
    found, last = attempts(record, second)
    assert (found["state"], found["reason"], last) == ("Failed", reason, second)
    assert found["endTime"] == record.get("endTime", stamp(20))
    for state in ("Suspended", "Succeeded"):
        closed = {**ENDED, "state": state}
        assert attempts(closed, second) == [closed, second]


@pytest.mark.parametrize("number", [0, -1, 100_000_000, 2**60, "x"])
def test_an_attempt_without_a_possible_name_is_left_out(number: Json) -> None:
    assert attempts(ENDED, {**ATTEMPT, "number": number}) == [ENDED]


@pytest.mark.parametrize("field", ["microBatchSize", "lastStep", "podUids", "runningTime"])
def test_only_the_field_goes_where_the_rest_can_do_without(field: str) -> None:
    assert attempts({**ATTEMPT, field: -1}) == [ATTEMPT]


@pytest.mark.parametrize(
    ("fields", "start"),
    [
        ({"runningTime": stamp(5), "endTime": stamp(9)}, stamp(5)),
        ({"runningTime": "x", "endTime": stamp(9)}, stamp(9)),
        ({}, CREATED),
    ],
)
def test_a_start_that_can_not_be_is_the_next_time_that_is_known(fields: Json, start: str) -> None:
    (found,) = attempts({**ATTEMPT, "startTime": "0000-01-01T00:00:00Z", **fields})
    assert found["startTime"] == start
    assert found.get("runningTime") in (None, stamp(5))


def test_an_attempt_without_any_time_is_left_out() -> None:
    body = {"metadata": {}, "status": {"attempts": [{**ATTEMPT, "startTime": "never"}]}}
    assert stored_status(body).attempts is None


@pytest.mark.parametrize("state", ["Stopping", "Failed", "Suspended", "Succeeded"])
def test_an_attempt_that_is_over_has_an_end_and_a_reason(state: str) -> None:
    (found,) = attempts({**ENDED, "state": state, "endTime": "never", "reason": "Whim"})
    assert (found["endTime"], found["reason"]) == (stamp(0), "ResultLost")
    assert found["message"] == "the status that said why was changed by someone else"


def test_an_attempt_that_goes_on_has_no_reason_to_have_ended() -> None:
    (found,) = attempts({**ENDED, "state": "Running"})
    assert "reason" not in found
    assert "message" not in found


def test_a_message_is_short_and_on_one_line() -> None:
    (found,) = attempts({**ENDED, "message": "a\n" + "b" * 9_000})
    assert found["message"] == "a " + "b" * 1021 + "…"


def test_a_conditions_time_that_can_not_be_is_the_last_attempts_end() -> None:
    never = {**CONDITION, "lastTransitionTime": "never"}
    (found,) = read({"conditions": [never], "attempts": [ENDED]})["conditions"]
    assert found["lastTransitionTime"] == stamp(9)
    (found,) = read({"conditions": [never]})["conditions"]
    assert found["lastTransitionTime"] == CREATED
    assert stored_status({"metadata": {}, "status": {"conditions": [never]}}).conditions is None


def test_the_times_of_a_check_that_can_not_be_are_none() -> None:
    check = {
        "state": "Running",
        "plan": "p",
        "startTime": "never",
        "endTime": "0000-01-01T00:00:00Z",
    }
    found = read({"rewardCheck": check})["rewardCheck"]
    assert found == {"state": "Running", "plan": "p", "failures": 0}


def test_no_time_is_yet_to_come() -> None:
    """What an edit puts into the future would hold up deadline and back-off until then."""
    far, now = stamp(90_000), stamp(60)
    edited = {
        "conditions": [{**CONDITION, "message": "m", "lastTransitionTime": far}],
        "attempts": [
            {**ENDED, "endTime": far},
            {**ATTEMPT, "number": 2, "startTime": far, "runningTime": far},
        ],
        "rewardCheck": {**WHOLE["rewardCheck"], "startTime": far, "endTime": far},
    }
    body = {"metadata": {"name": "bot", "creationTimestamp": CREATED}, "status": edited}
    found = stored_status(body, at(60)).model_dump(mode="json", by_alias=True, exclude_none=True)
    (condition,), (first, second) = found["conditions"], found["attempts"]
    assert condition["lastTransitionTime"] == now
    assert first["endTime"] == now
    assert (second["startTime"], second["runningTime"]) == (now, now)
    assert (found["rewardCheck"]["startTime"], found["rewardCheck"]["endTime"]) == (now, now)


def test_clocks_may_differ_a_little() -> None:
    edited = {"attempts": [{**ATTEMPT, "startTime": stamp(60)}, {**ENDED, "number": 2}]}
    body = {"metadata": {"name": "bot"}, "status": edited}
    times = [a.start_time for a in stored_status(body, at(0)).attempts or ()]
    assert times == [stamp(60), stamp(0)]
    times = [a.start_time for a in stored_status(body, at(-1)).attempts or ()]
    assert times == [stamp(-1), stamp(0)]


@pytest.mark.parametrize(("attempts", "last"), [([ENDED], 1), ([], 0)])
def test_no_attempt_to_come_is_left_uncounted(attempts: Json, last: int) -> None:
    found = read({"attempts": attempts, "retry": {"retries": 3, "afterAttempt": 2**53 - 1}})
    assert found["retry"] == {"retries": 3, "afterAttempt": last}
