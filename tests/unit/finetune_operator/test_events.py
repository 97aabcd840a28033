"""An Event tells of each transition once, and is counted when it repeats."""

from typing import Any

from finetune_api.status import AttemptState, Condition, ConditionType, FineTuneJobStatus
from finetune_contract.reasons import Reason
from finetune_operator.api import ApiError
from finetune_operator.events import Recorder, Transition, transitions
from support.operator_values import NOW, attempt, stamp


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


def test_only_a_change_is_told() -> None:
    assert told(status(Reason.RUNNING), status(Reason.RUNNING)) == []
    assert told(status(Reason.RUNNING), status(Reason.RUNNING, "True")) != []
    assert told(status(Reason.RUNNING), EMPTY) == []


class Journal:
    """An Api that takes Events, and refuses if told to."""

    def __init__(self, refuse: bool = False) -> None:
        self.created: list[Any] = []
        self.patched: list[Any] = []
        self._refuse = refuse

    async def create(self, body: Any) -> Any:
        if self._refuse:
            raise ApiError(403, "Forbidden", "the namespace goes away")
        self.created.append(body)
        return body

    async def patch_event(self, namespace: str, name: str, patch: Any) -> None:
        self.patched.append((namespace, name, patch))


JOB = {
    "apiVersion": "finetune.dev/v1alpha1",
    "kind": "FineTuneJob",
    "metadata": {"name": "bot", "namespace": "team", "uid": "u"},
}


async def test_the_same_event_again_is_counted() -> None:
    journal = Journal()
    recorder = Recorder(journal)  # type: ignore[arg-type]
    for _ in range(3):
        await recorder.record(JOB, Transition(True, "Failed", "why"), NOW)
    await recorder.record(JOB, Transition(True, "Failed", "other"), NOW)
    first, second = journal.created
    assert first["involvedObject"]["uid"] == "u"
    assert (first["type"], first["reason"], first["message"]) == ("Warning", "Failed", "why")
    assert first["metadata"]["name"] != second["metadata"]["name"]
    assert [p[2]["count"] for p in journal.patched] == [2, 3]
    assert {p[1] for p in journal.patched} == {first["metadata"]["name"]}


async def test_a_lost_event_has_no_consequence() -> None:
    await Recorder(Journal(refuse=True)).record(  # type: ignore[arg-type]
        JOB, Transition(False, "Running", "why"), NOW
    )


async def test_a_long_message_is_cut() -> None:
    journal = Journal()
    await Recorder(journal).record(JOB, Transition(False, "Running", "x" * 2000), NOW)  # type: ignore[arg-type]
    assert len(journal.created[0]["message"]) == 1024
