"""An Event tells of each transition once, and is counted when it repeats."""

import asyncio
from typing import Any

import kubernetes_validate
import pytest

from finetune_api.status import AttemptState, Condition, ConditionType, FineTuneJobStatus
from finetune_contract.reasons import Reason
from finetune_operator.cluster.api import ApiError, Unreachable
from finetune_operator.events import _REMEMBERED, Recorder, Transition, transitions
from support.operator.values import NOW, at, attempt, stamp


def status(reason: Reason, truth: Any = "Unknown", *attempts: Any) -> FineTuneJobStatus:
    told = Condition(
        type=ConditionType.SUCCEEDED,
        status=truth,
        reason=reason,
        message="why",
        last_transition_time=stamp(0),
    )
    return FineTuneJobStatus(conditions=[told], attempts=list(attempts) or None)


EMPTY = FineTuneJobStatus()
ENDED = {"state": AttemptState.FAILED, "end_time": stamp(9), "message": "went wrong"}


def told(old: FineTuneJobStatus, new: FineTuneJobStatus) -> list[tuple[bool, str, str]]:
    return [(t.warning, t.reason, t.message) for t in transitions(old, new)]


def test_an_attempt_starts_and_ends_once() -> None:
    starting = status(Reason.PENDING, "Unknown", attempt())
    assert told(EMPTY, starting) == [(False, "AttemptStarted", "attempt 1 of image trainer:1")]
    assert told(starting, starting) == []
    ended = status(Reason.PENDING, "Unknown", attempt(reason=Reason.OUT_OF_MEMORY, **ENDED))
    assert told(starting, ended) == [(True, "AttemptFailed", "attempt 1: OutOfMemory: went wrong")]
    assert told(ended, ended) == []


def test_going_on_from_a_checkpoint_is_told_once() -> None:
    started = status(Reason.RUNNING, "Unknown", attempt(2))
    resumed = status(Reason.RUNNING, "Unknown", attempt(2, resumed_step=0))
    assert told(started, resumed) == [(False, "AttemptResumed", "attempt 2 goes on from step 0")]
    assert told(resumed, resumed) == []
    assert told(started, started) == []


def test_a_success_is_no_failed_attempt() -> None:
    before = status(Reason.RUNNING, "Unknown", attempt())
    done = attempt(reason=Reason.SUCCEEDED, **{**ENDED, "state": AttemptState.SUCCEEDED})
    assert told(before, status(Reason.SUCCEEDED, "True", done)) == [(False, "Succeeded", "why")]


def test_a_suspension_is_no_failed_attempt() -> None:
    before = status(Reason.PENDING, "Unknown", attempt())
    after = status(Reason.SUSPENDED, "Unknown", attempt(reason=Reason.SUSPENDED, **ENDED))
    assert told(before, after) == [(False, "Suspended", "why")]


def test_a_new_reason_is_told_if_it_says_something() -> None:
    assert told(EMPTY, status(Reason.RUNNING)) == [(False, "Running", "why")]
    assert told(EMPTY, status(Reason.SUCCEEDED, "True")) == [(False, "Succeeded", "why")]
    assert told(EMPTY, status(Reason.DATA_INVALID, "False")) == [(True, "Failed", "why")]
    assert told(EMPTY, status(Reason.SECRET_NOT_FOUND)) == [(True, "SecretNotFound", "why")]
    assert told(EMPTY, status(Reason.INVALID_SPEC)) == [(True, "InvalidSpec", "why")]
    assert told(EMPTY, status(Reason.PENDING)) == []
    assert told(EMPTY, status(Reason.RETRYING)) == []


def test_what_a_job_waits_for_once_it_has_trained_is_told() -> None:
    """Before, the same reason ends the job, which is told as its failure."""
    trained = attempt(reason=Reason.EVICTED, last_step=3, **ENDED)
    before = status(Reason.RETRYING, "Unknown", trained)
    waits = status(Reason.BACKEND_REFUSED, "Unknown", trained)
    assert told(before, waits) == [(True, "BackendRefused", "why")]
    new = attempt(reason=Reason.EVICTED, last_step=0, **ENDED)
    before = status(Reason.RETRYING, "Unknown", new)
    assert told(before, status(Reason.BACKEND_REFUSED, "Unknown", new)) == []


def test_only_a_change_is_told() -> None:
    assert told(status(Reason.RUNNING), status(Reason.RUNNING)) == []
    assert told(status(Reason.RUNNING), status(Reason.RUNNING, "True")) != []
    assert told(status(Reason.RUNNING), EMPTY) == []


class Journal:
    """An Api that takes Events, and refuses or forgets if told to."""

    def __init__(self) -> None:
        self.created: list[Any] = []
        self.patched: list[Any] = []
        self.refusal: ApiError | Unreachable | None = None

    async def create(self, body: Any) -> Any:
        if self.refusal:
            raise self.refusal
        self.created.append(body)
        return body

    async def patch_event(self, namespace: str, name: str, patch: Any) -> None:
        if self.refusal:
            raise self.refusal
        if name not in [body["metadata"]["name"] for body in self.created]:
            raise ApiError(404, "NotFound", f'events "{name}" not found')
        self.patched.append((namespace, name, patch))


JOB = {
    "apiVersion": "finetune.dev/v1alpha1",
    "kind": "FineTuneJob",
    "metadata": {"name": "bot", "namespace": "team", "uid": "u"},
}
FAILED = Transition(True, "Failed", "why")


@pytest.fixture
def journal() -> Journal:
    return Journal()


@pytest.fixture
def recorder(journal: Journal) -> Recorder:
    return Recorder(journal)  # type: ignore[arg-type]


async def test_an_event_is_one_that_the_server_takes_and_kubectl_describe_finds(
    journal: Journal, recorder: Recorder
) -> None:
    await recorder.record(JOB, FAILED, NOW)
    await recorder.record(JOB, Transition(False, "Running", "why"), NOW)
    failed, running = journal.created
    kubernetes_validate.validate(failed, "1.33", strict=True)
    assert (failed["type"], failed["reason"], failed["message"]) == ("Warning", "Failed", "why")
    assert (running["type"], running["reason"]) == ("Normal", "Running")
    assert failed["metadata"]["namespace"] == "team"
    assert failed["metadata"]["name"].startswith("bot.")
    assert failed["involvedObject"] == {
        "apiVersion": "finetune.dev/v1alpha1",
        "kind": "FineTuneJob",
        "name": "bot",
        "namespace": "team",
        "uid": "u",
    }
    assert (failed["count"], failed["firstTimestamp"], failed["lastTimestamp"]) == (
        1,
        stamp(0),
        stamp(0),
    )
    assert failed["source"]["component"] == failed["reportingComponent"] == "finetune-operator"


async def test_the_same_event_again_is_counted(journal: Journal, recorder: Recorder) -> None:
    for seconds in range(3):
        await recorder.record(JOB, FAILED, at(seconds))
    (event,) = journal.created
    assert journal.patched == [
        ("team", event["metadata"]["name"], {"count": 2, "lastTimestamp": stamp(1)}),
        ("team", event["metadata"]["name"], {"count": 3, "lastTimestamp": stamp(2)}),
    ]


async def test_another_job_reason_or_message_is_another_event(
    journal: Journal, recorder: Recorder
) -> None:
    successor = {**JOB, "metadata": {"name": "bot", "namespace": "team", "uid": "v"}}
    for body, transition in [
        (JOB, FAILED),
        (JOB, Transition(True, "Failed", "other")),
        (JOB, Transition(True, "AttemptFailed", "why")),
        (successor, FAILED),
    ]:
        await recorder.record(body, transition, NOW)
    assert len({body["metadata"]["name"] for body in journal.created}) == 4


async def test_an_event_that_has_expired_begins_anew(journal: Journal, recorder: Recorder) -> None:
    await recorder.record(JOB, FAILED, NOW)
    await recorder.record(JOB, FAILED, NOW)
    journal.created.clear()
    await recorder.record(JOB, FAILED, at(7_200))
    await recorder.record(JOB, FAILED, at(7_201))
    (event,) = journal.created
    assert (event["count"], event["firstTimestamp"]) == (1, stamp(7_200))
    assert journal.patched[-1][2]["count"] == 2


@pytest.mark.parametrize(
    "refusal",
    [*(ApiError(code, "", "the namespace goes away") for code in (403, 404, 409)), Unreachable()],
)
async def test_a_lost_event_has_no_consequence(
    refusal: ApiError | Unreachable, journal: Journal, recorder: Recorder
) -> None:
    journal.refusal = refusal
    await recorder.record(JOB, FAILED, NOW)
    await recorder.record(JOB, FAILED, NOW)
    journal.refusal = None
    await recorder.record(JOB, FAILED, NOW)
    assert len(journal.created) == 1


async def test_a_long_message_is_cut(journal: Journal, recorder: Recorder) -> None:
    await recorder.record(JOB, Transition(False, "Running", "x" * 2000), NOW)
    assert len(journal.created[0]["message"]) == 1024


async def test_what_was_noted_is_written_in_turn_and_too_much_of_it_is_lost(
    journal: Journal, recorder: Recorder
) -> None:
    for number in range(2_000):
        recorder.note(JOB, Transition(False, "Running", str(number)), NOW)
    task = asyncio.create_task(recorder.run())
    async with asyncio.timeout(10):
        while len(journal.created) < 1_024:  # noqa: ASYNC110 - the condition is the test's
            await asyncio.sleep(0)
    task.cancel()
    assert [body["message"] for body in journal.created] == [str(n) for n in range(1_024)]


async def test_only_so_many_events_are_remembered_the_newest_of_them(
    journal: Journal, recorder: Recorder
) -> None:
    for number in range(_REMEMBERED + 1):
        await recorder.record(JOB, Transition(False, "Running", str(number)), NOW)
    assert len(recorder._counts) == _REMEMBERED
    await recorder.record(JOB, Transition(False, "Running", str(_REMEMBERED)), NOW)
    assert journal.patched[-1][2]["count"] == 2
