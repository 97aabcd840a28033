"""What may still run of an attempt is waited for, whatever status says of it."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from finetune_api.status import AttemptState, Condition, FineTuneJobStatus
from finetune_contract.reasons import Reason
from finetune_operator.judge.decide import decide
from finetune_operator.judge.decision import LOOK_EVERY
from finetune_operator.observe.observed import Observed, Pod
from finetune_operator.plan.backends import BACKEND
from support.operator.decisions import (
    FAILED,
    PODS,
    RUNNING,
    SETTINGS,
    WORKLOAD,
    decided,
    last_state,
    names,
    stopping,
)
from support.operator.values import at, attempt, ended, job, pod, stamp

DELETED = replace(WORKLOAD, deleting=True)
STRANGERS = replace(WORKLOAD, uid="strangers", owner_uid=None)
ENDED = ended(1, 1)
LATE = 100_000  # seconds, long after any fence


@pytest.mark.parametrize(
    ("seconds", "pods", "children", "goes", "starts"),
    [
        (LATE, (pod(1),), (WORKLOAD,), ["PyTorchJob/bot-a1"], False),
        (LATE, (pod(1, due=at(221)),), (WORKLOAD,), ["PyTorchJob/bot-a1"], False),
        (LATE, (pod(1),), (), ["Pod/bot-a1-worker-0"], False),
        (LATE, (pod(0, due=at(221)), pod(1)), (), ["Pod/bot-a1-worker-0"], False),
        (LATE, (pod(1),), (DELETED,), ["Pod/bot-a1-worker-0"], False),
        (LATE, (pod(1),), (STRANGERS,), ["Pod/bot-a1-worker-0"], False),
        (520, (pod(1, due=at(221)),), (), [], False),
        (520, (pod(1, due=at(221)),), (DELETED,), [], False),
        (521, (pod(1, due=at(221)),), (), [], True),
        (521, (pod(1, due=at(221)),), (DELETED,), [], True),
        (LATE, (ended(1, 1),), (WORKLOAD,), ["PyTorchJob/bot-a1"], True),
        (LATE, (), (), [], True),
    ],
)
def test_nothing_starts_beside_pods_of_an_attempt_that_status_says_is_over(
    seconds: int, pods: Any, children: Any, goes: list[str], starts: bool
) -> None:
    over = attempt(reason=Reason.POD_LOST, **FAILED)
    made = decided(over, seconds=seconds, pods=pods, children=children)
    assert (made.run is not None) is starts
    assert names(made) == goes
    if not starts:
        assert (made.verdict.reason, made.after) == (Reason.STOPPING, LOOK_EVERY)
        assert "; still there: " in made.verdict.message
        bounded = all(p.due for p in pods) and WORKLOAD not in children
        assert made.verdict.message.endswith(f"until {stamp(521)}" if bounded else "worker-0")


HELD = pod(1, end=ENDED.end)  # a sidecar runs on


@pytest.mark.parametrize("state", list(AttemptState)[2:])
@pytest.mark.parametrize("workload", [None, DELETED])
@pytest.mark.parametrize("left", [pod(1), HELD, replace(pod(1), phase="Pending", running=False)])
def test_pods_whose_workload_is_gone_are_asked_to_go_if_nobody_else_does(
    state: AttemptState, workload: Any, left: Any
) -> None:
    over = attempt(**{**FAILED, "state": state, "reason": Reason.POD_LOST})
    children = (workload,) if workload else ()
    succeeded = Condition(
        type="Succeeded", status="True", reason="Succeeded", last_transition_time=stamp(100)
    )
    conditions = [succeeded] if state is AttemptState.SUCCEEDED else None
    told = {"pods": (left,), "children": children, "conditions": conditions}
    early = decided(over, seconds=159, **told)
    assert names(early) == []
    assert early.after == timedelta(seconds=1)
    made = decided(over, seconds=160, **told)
    assert [(c.kind, c.name, c.uid, c.attempt) for c in made.delete] == [
        ("Pod", "bot-a1-worker-0", "pod-1", 1)
    ]
    assert made.confirm, "a lagging cache does not show the workload either"


@pytest.mark.parametrize(
    "other",
    [
        {"pods": (pod(1, due=at(221)),)},
        {"pods": (ENDED,)},
        {"pods": (replace(pod(1), gone=True),)},
        {"pods": (pod(1),), "children": (replace(WORKLOAD, outcome=False),)},
    ],
)
def test_a_pod_that_goes_or_has_gone_is_not_asked_to(other: Any) -> None:
    made = decided(attempt(**{**FAILED, "reason": Reason.POD_LOST}), seconds=LATE, **other)
    assert "Pod/bot-a1-worker-0" not in names(made)


def test_the_pods_of_an_attempt_that_goes_on_are_left_alone() -> None:
    assert names(decided(attempt(**RUNNING), seconds=LATE, pods=PODS, children=(WORKLOAD,))) == []
    lost = decided(attempt(**RUNNING), seconds=LATE, pods=PODS)
    assert (last_state(lost), names(lost)) == (AttemptState.STOPPING, [])


@pytest.mark.parametrize(
    ("seconds", "kin", "closed"),
    [
        (519, pod(0), False),
        (520, pod(0), True),
        (520, pod(0, due=at(221)), False),
        (521, pod(0, due=at(221)), True),
        (101, replace(pod(0), attempt=2), True),
        (101, ended(0, 1), True),
    ],
)
def test_pods_that_may_be_an_attempts_own_are_waited_for(
    seconds: int, kin: Pod, closed: bool
) -> None:
    status = FineTuneJobStatus(attempts=[stopping(workload_uid=None)])
    made = decide(job(status), Observed(kin=(kin,)), at(seconds), SETTINGS, BACKEND, None)
    assert (made.attempts[0].state is AttemptState.FAILED) is closed


STARTING = attempt(2, state=AttemptState.STARTING, workload_uid=None)
THIRD = replace(pod(1), attempt=3)
OVER = attempt(**{**FAILED, "reason": Reason.POD_LOST})
GOING = pod(1, due=at(221), deleted=at(101))


@pytest.mark.parametrize(
    ("seconds", "record", "left", "children", "goes", "until"),
    [
        (LATE, (), pod(1), (), ["Pod/bot-a1-worker-0"], None),
        (520, (), GOING, (), [], 521),
        (521, (), GOING, (), [], 0),
        (LATE, (), replace(GOING, due=at(LATE + 99), deleted=at(LATE)), (), [], LATE + 420),
        (LATE, (), GOING, (WORKLOAD,), ["PyTorchJob/bot-a1"], None),
        (LATE, (), pod(1), (WORKLOAD,), ["PyTorchJob/bot-a1"], None),
        (LATE, (), ended(1, 1), (), [], 0),
        (520, (OVER,), GOING, (), [], 521),
        (521, (OVER,), GOING, (), [], 0),
        (159, (OVER,), pod(1), (), [], None),
        (160, (OVER,), pod(1), (), ["Pod/bot-a1-worker-0"], None),
        (521, (attempt(),), GOING, (), [], 0),
    ],
)
@pytest.mark.parametrize("known", [True, False])
def test_nothing_is_made_beside_what_may_run_of_any_other_attempt(
    known: bool, seconds: int, record: Any, left: Pod, children: Any, goes: Any, until: int | None
) -> None:
    status = FineTuneJobStatus(attempts=[*record, STARTING])
    seen = Observed(children, pods=(left,) if known else (), kin=() if known else (left,))
    made = decide(job(status), seen, at(seconds), SETTINGS, BACKEND, None)
    assert (made.run is not None) is (until == 0)
    assert names(made) == goes
    assert made.confirm
    if until != 0:
        told = "attempt 2 waits for pods that run; still there: pod bot-a1-worker-0"
        bound = f", waited for until {stamp(until)}" if until else ""
        assert made.verdict.message == told + bound


@pytest.mark.parametrize(
    ("workload", "goes"),
    [
        ({"owner_uid": None}, False),
        ({"owner_uid": None, "deleting": True}, False),
        ({"deleting": True}, True),
        ({"attempt": 2}, True),
    ],
)
def test_pods_that_may_be_of_somebody_elses_workload_are_left_alone(
    workload: Any, goes: bool
) -> None:
    seen = Observed((replace(WORKLOAD, **{"attempt": 3, **workload}),), kin=(THIRD,))
    assert ("Pod/bot-a1-worker-0" in names(decided_on(seen))) is goes
    assert "Pod/bot-a1-worker-0" in names(decided_on(Observed(pods=(THIRD,))))


@pytest.mark.parametrize(("seconds", "goes"), [(59, []), (60, ["Pod/bot-a2-worker-0"])])
def test_an_attempt_is_not_made_anew_beside_pods_whose_workload_is_gone(
    seconds: int, goes: list[str]
) -> None:
    status = FineTuneJobStatus(attempts=[STARTING])
    seen = Observed(kin=(replace(pod(1), name="bot-a2-worker-0", attempt=2),))
    made = decide(job(status), seen, at(seconds), SETTINGS, BACKEND, None)
    assert (made.run, names(made)) == (None, goes)


def decided_on(seen: Observed) -> Any:
    return decide(job(), seen, at(9), SETTINGS, BACKEND, None)


def test_a_workload_that_stands_is_followed_whatever_runs_beside_it() -> None:
    children = (replace(WORKLOAD, name="bot-a2", attempt=2, uid="second"),)
    status = FineTuneJobStatus(attempts=[STARTING])
    seen = Observed(children, kin=(pod(1),))
    assert decide(job(status), seen, at(9), SETTINGS, BACKEND, None).run is not None


def test_the_first_attempt_waits_for_pods_that_status_has_forgotten() -> None:
    made = decided_on(Observed(kin=(THIRD,)))
    assert (made.run, made.attempts, made.verdict.reason) == (None, (), Reason.STOPPING)
