"""Edges in time and state at which a decision turns; the golden cases tell the rest."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from finetune_api.status import (
    AttemptState,
)
from finetune_contract.reasons import Reason
from finetune_operator.judge.decision import Course
from finetune_operator.observe.observed import Child
from support.operator.decisions import (
    ACCOUNT,
    FAILED,
    LEASE,
    PODS,
    RUNNING,
    WORKLOAD,
    decided,
    last_state,
    names,
    stopping,
)
from support.operator.values import (
    UID,
    at,
    attempt,
    ended,
    failure,
    pod,
    stamp,
    success,
)


def test_the_deadline_counts_from_the_first_second_to_the_last() -> None:
    policy = {"activeDeadlineSeconds": 100}
    seen: dict[str, Any] = {"pods": PODS, "children": (WORKLOAD,), "runPolicy": policy}
    before = decided(attempt(**RUNNING), seconds=99, **seen)
    assert last_state(before) is AttemptState.RUNNING
    assert before.after == timedelta(seconds=1)
    after = decided(attempt(**RUNNING), seconds=100, **seen)
    assert after.attempts[-1].reason == Reason.DEADLINE_EXCEEDED
    assert names(after) == ["PyTorchJob/bot-a1"]


def test_the_deadline_ends_a_job_between_its_attempts_too() -> None:
    between = attempt(reason=Reason.POD_LOST, **FAILED)
    over = decided(between, seconds=101, runPolicy={"activeDeadlineSeconds": 100})
    assert (over.verdict.course, over.verdict.reason) == (
        Course.FAILED,
        Reason.DEADLINE_EXCEEDED,
    )
    on = decided(between, seconds=101, runPolicy={"activeDeadlineSeconds": 101})
    assert on.verdict.reason == Reason.RETRYING


def test_what_ended_by_itself_is_left_to_training_operator_for_its_logs() -> None:
    pods = (ended(0, 12, result=failure(Reason.DATA_INVALID)), pod(1))
    seen: dict[str, Any] = {"pods": pods, "children": (WORKLOAD, LEASE)}
    first = decided(attempt(**RUNNING), seconds=50, **seen)
    assert last_state(first) is AttemptState.STOPPING
    assert names(first) == []
    assert first.after == timedelta(seconds=30)
    assert names(decided(*first.attempts, seconds=79, **seen)) == []
    late = decided(*first.attempts, seconds=80, **seen)
    assert names(late) == ["PyTorchJob/bot-a1", "Lease/bot-a1"]
    assert late.after == timedelta(seconds=90), "the pods' grace comes before the fence"


def test_an_attempt_that_is_tried_again_is_removed_at_once() -> None:
    pods = (ended(0, 1, result=failure(Reason.TRAINER_ERROR)), pod(1))
    made = decided(attempt(**RUNNING), pods=pods, children=(WORKLOAD, LEASE, ACCOUNT))
    assert last_state(made) is AttemptState.STOPPING
    assert names(made) == ["PyTorchJob/bot-a1", "Lease/bot-a1"]


@pytest.mark.parametrize(
    ("seconds", "pods", "children", "closed"),
    [
        (519, (pod(1),), (), False),
        (520, (pod(1),), (), True),
        (520, (pod(1, due=at(221)),), (), False),
        (521, (pod(1, due=at(221)),), (), True),
        (3999, (pod(1, due=at(10**8)),), (), False),
        (4000, (pod(1, due=at(10**8)),), (), True),
        (101, (), (WORKLOAD,), False),
        (101, (ended(1, 1),), (replace(WORKLOAD, outcome=False),), True),
        (101, (pod(1, gone=True),), (), True),
        (101, (), (), True),
    ],
)
def test_an_attempt_is_closed_when_it_is_quiet_or_fenced(
    seconds: int, pods: Any, children: Any, closed: bool
) -> None:
    made = decided(stopping(), seconds=seconds, pods=pods, children=children)
    assert (made.attempts[0].state is AttemptState.FAILED) is closed
    assert (made.attempts[0].pod_uids is None) is closed


def test_what_is_still_there_after_its_grace_is_named() -> None:
    pods = tuple(pod(rank) for rank in range(5))
    seen: dict[str, Any] = {"pods": pods[:2], "children": (replace(WORKLOAD, deleting=True),)}
    early = decided(stopping(), seconds=219, **seen)
    assert (early.verdict.message.count("still there"), early.after) == (0, timedelta(seconds=1))
    late = decided(stopping(), seconds=220, **seen)
    named = "; still there: PyTorchJob bot-a1, pod bot-a1-master-0, pod bot-a1-worker-0"
    assert late.verdict.message.endswith(named)
    assert late.after == timedelta(seconds=300)
    many = decided(stopping(), seconds=220, pods=pods).verdict.message
    assert many.endswith("pod bot-a1-worker-1 and 2 more")


@pytest.mark.parametrize(
    ("attempts", "pods", "children", "confirms"),
    [
        ([stopping()], (), (), True),
        ([stopping()], (ended(1, 1),), (replace(WORKLOAD, outcome=False),), False),
        ([attempt(**RUNNING)], (pod(0),), (WORKLOAD,), True),
        ([attempt(**RUNNING)], (pod(0), ended(1, 18)), (WORKLOAD,), False),
        ([attempt(**RUNNING)], PODS, (WORKLOAD,), False),
        ([attempt(state="Starting", workload_uid=None)], (), (), True),
        ([], (), (), False),
    ],
)
def test_an_absence_is_confirmed_before_it_is_acted_on(
    attempts: Any, pods: Any, children: Any, confirms: bool
) -> None:
    assert decided(*attempts, seconds=101, pods=pods, children=children).confirm is confirms


@pytest.mark.parametrize(
    ("reason", "suspend", "course"),
    [
        (Reason.DATA_INVALID, False, Course.FAILED),
        (Reason.SUSPENDED, True, Course.SUSPENDED),
        (Reason.SUSPENDED, False, Course.PROGRESSING),
        (Reason.POD_LOST, False, Course.PROGRESSING),
    ],
)
def test_whatever_follows_an_absence_is_confirmed_and_strays_go_with_it(
    reason: Reason, suspend: bool, course: Course
) -> None:
    stray = replace(LEASE, name="bot-a7", attempt=7)
    policy = {"suspend": suspend}
    made = decided(stopping(reason=reason), seconds=101, children=(stray,), runPolicy=policy)
    assert (made.verdict.course, made.confirm) == (course, True)
    assert names(made) == ["Lease/bot-a7"]


@pytest.mark.parametrize(
    ("pods", "state"),
    [
        ((ended(0, 1, reason="OOMKilled"), pod(1)), AttemptState.STOPPING),
        ((ended(0, 1, reason="OOMKilled"), ended(1, 1)), AttemptState.FAILED),
        ((ended(0, 0, result=success(number=3)), pod(1)), AttemptState.SUCCEEDED),
    ],
)
def test_the_end_of_an_attempt_leaves_the_records_of_those_before(
    pods: Any, state: AttemptState
) -> None:
    before = [attempt(number, reason=Reason.POD_LOST, **FAILED) for number in (1, 2)]
    now = attempt(3, **{**RUNNING, "pod_uids": [p.uid for p in pods]})
    made = decided(*before, now, seconds=200, pods=tuple(replace(p, attempt=3) for p in pods))
    assert list(made.attempts[:2]) == before
    assert (made.attempts[2].number, made.attempts[2].state) == (3, state)


def test_an_adapter_published_while_the_attempt_is_stopped_is_accepted() -> None:
    record = stopping(reason=Reason.SUSPENDED, failed_rank=1, last_step=12, lost_steps=2)
    pods = (ended(0, 0, result=success().model_copy(update={"step": 20})), pod(1))
    stray = replace(LEASE, name="bot-a7", attempt=7)
    made = decided(record, seconds=150, pods=pods, children=(WORKLOAD, LEASE, stray))
    assert made.verdict.course is Course.SUCCEEDED
    assert names(made) == ["Lease/bot-a7"]
    assert made.artifact is not None
    assert made.artifact.attempt == 1
    done = made.attempts[-1]
    assert (done.state, done.reason, done.end_time) == (
        AttemptState.SUCCEEDED,
        Reason.SUCCEEDED,
        stamp(100),
    )
    assert (done.message, done.failed_rank, done.lost_steps) == (None, None, None)
    assert done.last_step == 20
    other = (ended(0, 0, result=success(number=2)), pod(1))
    still = decided(record, seconds=150, pods=other, children=(WORKLOAD,))
    assert last_state(still) is AttemptState.STOPPING


def test_the_next_attempt_waits_for_its_time() -> None:
    lost = attempt(reason=Reason.POD_LOST, **FAILED)
    early = decided(lost, seconds=109, children=(WORKLOAD,))
    assert (early.verdict.reason, early.after) == (Reason.RETRYING, timedelta(seconds=1))
    assert early.run is None
    assert names(early) == ["PyTorchJob/bot-a1"]
    due = decided(lost, seconds=110)
    assert due.run is not None
    assert (due.run.number, due.run.state) == (2, AttemptState.STARTING)


def test_a_suspension_frees_what_attempts_had_and_keeps_what_they_share() -> None:
    done = attempt(reason=Reason.SUSPENDED, **{**FAILED, "state": AttemptState.SUSPENDED})
    made = decided(done, children=(LEASE, ACCOUNT), runPolicy={"suspend": True})
    assert made.verdict.course is Course.SUSPENDED
    assert names(made) == ["Lease/bot-a1"]
    assert decided(runPolicy={"suspend": True}).attempts == ()


def test_a_failure_is_told_before_a_suspension() -> None:
    bad = attempt(reason=Reason.DATA_INVALID, **FAILED)
    assert decided(bad, runPolicy={"suspend": True}).verdict.course is Course.FAILED


def test_strays_go_and_strangers_stay() -> None:
    stray = Child("Lease", "bot-a7", "stray", UID, 7, False)
    going = replace(stray, name="bot-a8", deleting=True)
    foreign = Child("ConfigMap", "bot-a1", "foreign", None, 1, False)
    old = replace(ACCOUNT, owner_uid="a deleted job")
    made = decided(
        attempt(**RUNNING), pods=PODS, children=(WORKLOAD, LEASE, stray, going, foreign, old)
    )
    assert names(made) == ["Lease/bot-a7", "ServiceAccount/bot-finetune"]


def test_the_image_of_the_job_goes_before_the_operators() -> None:
    own = decided(workers={"replicas": 1, "image": "own:1"}).run
    default = decided().run
    assert own is not None
    assert default is not None
    assert (own.image, default.image) == ("own:1", "trainer:1")
