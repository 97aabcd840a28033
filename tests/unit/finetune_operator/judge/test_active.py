"""What is recorded of an attempt under way, when it is looked at again, and when it has ended."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from finetune_api.status import (
    AttemptState,
    FineTuneJobStatus,
)
from finetune_contract.progress import Phase, Progress
from finetune_contract.reasons import Reason
from finetune_operator.judge.decide import decide
from finetune_operator.judge.decision import Decision
from finetune_operator.judge.retry import gives_up
from finetune_operator.observe.observed import Observed, Obstacle, Report, Stray
from finetune_operator.plan.backends import BACKEND
from support.operator.decisions import (
    FAILED,
    LEASE,
    PODS,
    RUNNING,
    SETTINGS,
    WORKLOAD,
    decided,
    last_state,
    names,
    stopping,
)
from support.operator.values import (
    at,
    attempt,
    checkpoint_ref,
    ended,
    failure,
    job,
    pod,
    resolved,
    stamp,
)

STUCK = replace(pod(0), phase="Pending", running=False, obstacle=Obstacle("ErrImagePull", "no"))


@pytest.mark.parametrize(("seconds", "ends"), [(599, False), (600, True)])
def test_what_only_the_user_can_bring_has_its_time(seconds: int, ends: bool) -> None:
    made = decided(attempt(), seconds=seconds, pods=(STUCK, pod(1)), children=(WORKLOAD,))
    assert (made.attempts[-1].reason == Reason.START_TIMEOUT) is ends
    if not ends:
        assert made.after == timedelta(seconds=1)
        assert made.verdict.reason == Reason.IMAGE_UNAVAILABLE


GATED = replace(STUCK, scheduled=None, obstacle=Obstacle("Unschedulable", "no room"))


def test_pods_without_nodes_have_all_the_time() -> None:
    gated = (GATED, replace(GATED, name="bot-a1-worker-0", uid="pod-1", node_rank=1))
    made = decided(attempt(), seconds=9_999, pods=gated, children=(WORKLOAD,))
    assert made.verdict.reason == Reason.UNSCHEDULABLE
    assert last_state(made) is AttemptState.RUNNING


def test_a_queue_may_not_hold_the_rest_while_a_pod_holds_its_node() -> None:
    held = replace(WORKLOAD, held="is suspended")
    ends = decided(attempt(), seconds=600, pods=(pod(1),), children=(held,)).attempts[-1]
    assert (ends.state, ends.reason) == (AttemptState.STOPPING, Reason.QUEUED)
    waits = decided(attempt(), seconds=99_999, children=(held,))
    assert (waits.verdict.reason, last_state(waits)) == (Reason.QUEUED, AttemptState.RUNNING)


@pytest.mark.parametrize("running", [True, False])
def test_a_pod_may_not_hold_its_node_for_ever_for_one_without(running: bool) -> None:
    holds = replace(pod(1), scheduled=at(5), running=running)
    waits = decided(attempt(), seconds=604, pods=(GATED, holds), children=(WORKLOAD,))
    assert (waits.verdict.reason, waits.after) == (Reason.UNSCHEDULABLE, timedelta(seconds=1))
    made = decided(attempt(), seconds=605, pods=(GATED, holds), children=(WORKLOAD,))
    ended = made.attempts[-1]
    assert (ended.state, ended.reason) == (AttemptState.STOPPING, Reason.UNSCHEDULABLE)
    assert ended.message == "bot-a1-master-0: no room; the other pods gave their nodes back"
    many = [attempt(n, state="Failed", end_time=stamp(0), reason=ended.reason) for n in range(99)]
    assert gives_up(job(), many, SETTINGS) is None, "room comes by itself"


@pytest.mark.parametrize(("seconds", "ends"), [(599, False), (600, True)])
def test_a_pod_that_is_refused_has_its_time(seconds: int, ends: bool) -> None:
    said = Observed((WORKLOAD,), (pod(0),), warnings={"workload": "exceeded quota"}, looked=True)
    status = FineTuneJobStatus(attempts=[attempt(state="Starting")])
    made = decide(job(status), said, at(seconds), SETTINGS, BACKEND, None)
    assert (made.attempts[-1].reason == Reason.START_TIMEOUT) is ends
    words = "PyTorchJob bot-a1 has 1 of 2 pods: exceeded quota"
    if ends:
        assert made.attempts[-1].message == f"PodRefused: {words}"
    else:
        assert made.verdict.reason is Reason.POD_REFUSED
        assert made.verdict.message.startswith(words)


def test_pods_are_recorded_when_all_were_seen_and_running_when_all_run() -> None:
    one = decided(attempt(state="Starting"), pods=(pod(0),), children=(WORKLOAD,))
    assert (one.attempts[-1].pod_uids, last_state(one)) == (None, AttemptState.STARTING)
    waiting = replace(pod(1), phase="Pending", running=False)
    both = decided(attempt(state="Starting"), pods=(pod(0), waiting), children=(WORKLOAD,))
    assert both.attempts[-1].pod_uids == ["pod-0", "pod-1"]
    assert last_state(both) is AttemptState.STARTING
    assert both.after == timedelta(seconds=3), "a start that is slow is looked at soon"
    slow = decided(
        attempt(state="Starting"), seconds=8, pods=(pod(0), waiting), children=(WORKLOAD,)
    )
    assert slow.after == timedelta(seconds=10), "and then now and then"
    run = decided(attempt(state="Starting"), seconds=7, pods=PODS, children=(WORKLOAD,))
    assert (run.attempts[-1].running_time, last_state(run)) == (stamp(7), AttemptState.RUNNING)
    assert run.after is None
    later = decided(attempt(**RUNNING), seconds=9, pods=PODS, children=(WORKLOAD,))
    assert later.attempts[-1].running_time == stamp(1)


def test_a_pod_that_ended_well_belongs_to_the_run() -> None:
    fast = decided(attempt(state="Starting"), pods=(pod(0), ended(1, 0)), children=(WORKLOAD,))
    assert last_state(fast) is AttemptState.RUNNING
    gone = replace(ended(1, 0), gone=True)
    made = decided(attempt(**RUNNING), pods=(pod(0), gone), children=(WORKLOAD,))
    assert made.attempts[-1].pod_uids == ["pod-0", "pod-1"]


def test_a_pod_that_went_before_all_were_seen_is_not_of_the_run() -> None:
    gone = replace(pod(0, uid="first"), gone=True, running=False)
    early = decided(attempt(state="Starting"), pods=(gone, pod(1)), children=(WORKLOAD,))
    assert (early.attempts[-1].pod_uids, last_state(early)) == (None, AttemptState.STARTING)
    both = decided(attempt(state="Starting"), pods=(gone, *PODS), children=(WORKLOAD,))
    assert (both.attempts[-1].pod_uids, last_state(both)) == (
        ["pod-0", "pod-1"],
        AttemptState.RUNNING,
    )


def test_following_an_attempt_leaves_the_records_of_those_before() -> None:
    lost = {"state": AttemptState.FAILED, "end_time": stamp(0), "reason": Reason.POD_LOST}
    before = [attempt(number, message="why", **lost) for number in (1, 2, 3)]
    workload = replace(WORKLOAD, name="bot-a4", attempt=4)
    pods = tuple(replace(p, attempt=4) for p in PODS)
    made = decided(*before, attempt(4, state="Starting"), pods=pods, children=(workload,))
    assert list(made.attempts[:3]) == before
    assert [a.number for a in made.attempts] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("policy", "seconds", "reason"),
    [
        ({"suspend": True}, 6, Reason.SUSPENDED),
        ({"activeDeadlineSeconds": 6}, 6, Reason.DEADLINE_EXCEEDED),
        ({"activeDeadlineSeconds": 7}, 6, None),
    ],
)
def test_whoever_stops_an_attempt_need_not_wait_for_the_cause_of_its_end(
    policy: Any, seconds: int, reason: Reason | None
) -> None:
    pods = (ended(0, 23, seconds=5), pod(1))
    record = attempt(**RUNNING)
    made = decided(record, seconds=seconds, pods=pods, children=(WORKLOAD,), runPolicy=policy)
    assert made.attempts[-1].reason == reason
    cause = (ended(0, 12, seconds=5), pod(1))
    told = decided(record, seconds=seconds, pods=cause, children=(WORKLOAD,), runPolicy=policy)
    assert told.attempts[-1].reason == Reason.DATA_INVALID


def told_by(number: int = 1, **of: Any) -> Report:
    return Report(number, at(0), Progress(phase=Phase.TRAIN, **of))


def reported(record: Any, report: Report, *pods: Any, **fields: Any) -> Decision:
    status = FineTuneJobStatus(attempts=[record])
    observed = Observed((WORKLOAD,), pods or PODS, (report,))
    return decide(job(status, **fields), observed, at(50), SETTINGS, BACKEND, None)


def test_what_the_running_trainer_chose_is_recorded_and_its_steps_are_not() -> None:
    report = told_by(plan=resolved(8), resumed_step=3, step=5)
    made = reported(attempt(micro_batch_size=None, **RUNNING), report).attempts[-1]
    assert (made.micro_batch_size, made.resumed_step) == (8, 3)
    assert (made.last_step, made.lost_steps) == (None, None)


def test_an_end_counts_the_steps_that_are_lost() -> None:
    report = told_by(step=9, checkpoint=checkpoint_ref(6))
    killed = ended(1, 137, seconds=1, reason="OOMKilled")
    made = reported(attempt(**RUNNING), report, pod(0), killed).attempts[-1]
    assert (made.state, made.last_step, made.lost_steps) == (AttemptState.STOPPING, 9, 3)


def test_the_last_words_of_pods_that_were_told_to_stop_are_heard() -> None:
    report = told_by(step=9, checkpoint=checkpoint_ref(6))
    record = stopping(last_step=9, lost_steps=3)
    words = failure(Reason.INTERRUPTED, step=10, checkpoint=checkpoint_ref(10))
    made = reported(record, report, ended(0, 24, result=words), pod(1)).attempts[-1]
    assert (made.state, made.last_step, made.lost_steps) == (AttemptState.STOPPING, 10, 0)


def test_a_symptom_is_given_time_and_only_strays_are_removed_meanwhile() -> None:
    pods = (ended(0, 23, seconds=5), pod(1))
    stray = replace(LEASE, name="bot-a7", attempt=7)
    made = decided(attempt(**RUNNING), seconds=6, pods=pods, children=(WORKLOAD, LEASE, stray))
    assert last_state(made) is AttemptState.RUNNING
    assert (names(made), made.after) == (["Lease/bot-a7"], timedelta(seconds=10))


@pytest.mark.parametrize(
    ("seconds", "scheduled", "after"),
    [(0, 0, 3), (2, 0, 1), (3, 0, 10), (5, 4, 2), (5, None, 10)],
)
def test_a_pod_with_a_node_is_looked_at_when_it_has_had_its_moment(
    seconds: int, scheduled: int | None, after: int
) -> None:
    given = None if scheduled is None else at(scheduled)
    slow = replace(STUCK, obstacle=None, scheduled=given)
    made = decided(
        attempt(state="Starting"), seconds=seconds, pods=(slow, pod(1)), children=(WORKLOAD,)
    )
    assert made.after == timedelta(seconds=after)


def test_of_several_slow_pods_the_first_to_have_had_its_moment_is_waited_for() -> None:
    slow = [pod(n, phase="Pending", running=False, scheduled=at(s)) for n, s in ((0, 2), (1, 1))]
    made = decided(attempt(state="Starting"), seconds=3, pods=tuple(slow), children=(WORKLOAD,))
    assert made.after == timedelta(seconds=1)
    done = replace(slow[1], scheduled=None), ended(0, 0)
    made = decided(attempt(state="Starting"), seconds=1, pods=done, children=(WORKLOAD,))
    assert made.after == timedelta(seconds=10), "one that has ended has had it"


@pytest.mark.parametrize(
    ("seconds", "pods", "asks"),
    [
        (2, (), ()),
        (3, (), ("workload",)),
        (2, (pod(0),), ()),
        (3, (pod(0),), ("workload",)),
        (3, (STUCK,), ("workload",)),
        (3, (replace(STUCK, obstacle=None),), ("workload", "pod-0")),
        (3, (replace(STUCK, obstacle=None), pod(1)), ("workload", "pod-0")),
        (2, (replace(STUCK, obstacle=None), pod(1)), ()),
        (3, (replace(STUCK, obstacle=None, scheduled=None), pod(1)), ("workload",)),
        (3, (STUCK, pod(1)), ("workload",)),
        (
            3,
            tuple(pod(n, running=False) for n in range(9)),
            ("workload", *(f"pod-{n}" for n in range(5))),
        ),
        (3, (replace(STUCK, obstacle=None, scheduled=None), ended(1, 0)), ("workload",)),
        (3, PODS, ()),
    ],
)
def test_only_what_is_stuck_is_asked_about(seconds: int, pods: Any, asks: Any) -> None:
    made = decided(attempt(state="Starting"), seconds=seconds, pods=pods, children=(WORKLOAD,))
    assert made.look == asks


STRAY = Stray("bot-a1-master-0", 1, "ReplicaSet web")
TAKEN = "pod bot-a1-master-0 exists and belongs to ReplicaSet web; delete it or rename the job"


def with_stray(
    *attempts: Any, stray: Stray = STRAY, seconds: float = 9, **observed: Any
) -> Decision:
    status = FineTuneJobStatus(attempts=list(attempts) or None)
    seen = Observed(strays=(stray,), **observed)
    return decide(job(status), seen, at(seconds), SETTINGS, BACKEND, None)


@pytest.mark.parametrize(
    "attempts", [(), (attempt(workload_uid=None, state=AttemptState.STARTING),)]
)
def test_nothing_is_made_beside_a_strangers_pod_of_a_planned_name(attempts: Any) -> None:
    made = with_stray(*attempts)
    assert made.run is None
    assert [(a.number, a.state) for a in made.attempts] == [(1, AttemptState.STARTING)]
    assert made.verdict.reason == Reason.NAME_TAKEN
    assert made.verdict.message.startswith(TAKEN)
    assert made.confirm, "the workload may have been missed"
    assert made.after == timedelta(seconds=10)
    other = with_stray(*attempts, stray=replace(STRAY, attempt=2))
    assert other.run is not None


def test_a_strangers_pod_ends_nothing_and_is_told_of() -> None:
    made = with_stray(attempt(), children=(WORKLOAD,), pods=(pod(1),))
    assert last_state(made) is AttemptState.RUNNING
    assert made.run is not None
    assert made.verdict.reason == Reason.NAME_TAKEN
    assert made.verdict.message.startswith(TAKEN)


def test_a_taken_name_is_not_waited_for_without_end() -> None:
    starting = attempt(workload_uid=None, state=AttemptState.STARTING)
    early = with_stray(starting, seconds=595)
    assert (early.verdict.reason, early.after) == (Reason.NAME_TAKEN, timedelta(seconds=5))
    late = with_stray(starting, seconds=600)
    assert late.attempts[-1].reason == Reason.START_TIMEOUT
    assert TAKEN in (late.attempts[-1].message or "")
    assert late.confirm
    before = attempt(**{**FAILED, "reason": Reason.POD_LOST, "last_step": 3})
    second = attempt(2, workload_uid=None, state=AttemptState.STARTING)
    waits = with_stray(before, second, stray=replace(STRAY, attempt=2), seconds=99_999)
    assert (waits.verdict.reason, waits.attempts[-1]) == (Reason.NAME_TAKEN, second)


def test_a_taken_name_holds_up_no_deadline() -> None:
    status = FineTuneJobStatus(attempts=[attempt(workload_uid=None)])
    due = job(status, runPolicy={"activeDeadlineSeconds": 5})
    made = decide(due, Observed(strays=(STRAY,)), at(9), SETTINGS, BACKEND, None)
    assert made.attempts[-1].reason == Reason.DEADLINE_EXCEEDED


@pytest.mark.parametrize(("edited", "began"), [(61, 0), (60, 60), (-5, -5)])
def test_an_attempt_began_before_what_it_made(edited: float, began: float) -> None:
    """Its record can be edited; when its workload was made, the API server says."""
    made = replace(WORKLOAD, created=at(0))
    running = attempt(**{**RUNNING, "start_time": stamp(edited)})
    known = decided(running, seconds=100, pods=PODS, children=(made, LEASE))
    assert known.attempts[-1].start_time == stamp(began)


def test_what_somebody_planted_before_does_not_say_when_an_attempt_began() -> None:
    planted = replace(WORKLOAD, created=at(-99_999), uid="planted")
    for recorded in (None, "workload"):
        starts = attempt(state="Starting", workload_uid=recorded, start_time=stamp(9))
        known = decided(starts, seconds=10, children=(planted, LEASE))
        assert known.attempts[-1].start_time == stamp(9)


def test_a_deadline_is_not_put_off_by_an_edited_start() -> None:
    made = replace(WORKLOAD, created=at(0))
    running = attempt(**{**RUNNING, "start_time": stamp(3000)})
    policy = {"activeDeadlineSeconds": 3600}
    over = decided(
        running, seconds=3600, pods=PODS, children=(made, LEASE), runPolicy=policy
    ).attempts[-1]
    assert over.reason == Reason.DEADLINE_EXCEEDED


def test_what_is_yet_to_be_made_has_the_jobs_image_whatever_status_says() -> None:
    edited = {"image": "evil:1", "state": AttemptState.STARTING, "workload_uid": None}
    run = decided(attempt(**edited)).run
    assert run is not None
    assert run.image == "trainer:1"
    run = decided(attempt(**edited), workers={"replicas": 2, "image": "mine:2"}).run
    assert run is not None
    assert run.image == "mine:2"


def test_an_attempt_that_was_made_keeps_the_image_that_it_has() -> None:
    """The operator's usual one may be another since."""
    started = attempt(image="trainer:0", state=AttemptState.STARTING)
    for seen in ({"children": (WORKLOAD, LEASE)}, {"pods": PODS}):
        assert decided(started, **seen).attempts[-1].image == "trainer:0"
