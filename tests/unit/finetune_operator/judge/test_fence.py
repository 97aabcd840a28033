"""What may still run of an attempt is waited for, whatever status says of it."""

from dataclasses import replace
from typing import Any

import pytest

from finetune_api.status import AttemptState, FineTuneJobStatus
from finetune_contract.reasons import Reason
from finetune_operator.judge.decide import decide
from finetune_operator.judge.decision import LOOK_EVERY
from finetune_operator.observe.observed import Observed, Pod
from finetune_operator.plan.backends import BACKEND
from support.operator.decisions import FAILED, SETTINGS, WORKLOAD, decided, names, stopping
from support.operator.values import at, attempt, ended, job, pod

DELETED = replace(WORKLOAD, deleting=True)
LATE = 100_000  # seconds, long after any fence


@pytest.mark.parametrize(
    ("seconds", "pods", "children", "starts"),
    [
        (LATE, (pod(1),), (WORKLOAD,), False),
        (LATE, (pod(1, due=at(221)),), (WORKLOAD,), False),
        (LATE, (pod(1),), (), False),
        (LATE, (pod(0, due=at(221)), pod(1)), (), False),
        (519, (pod(1),), (DELETED,), False),
        (520, (pod(1),), (DELETED,), True),
        (520, (pod(1, due=at(221)),), (), False),
        (521, (pod(1, due=at(221)),), (), True),
        (LATE, (ended(1, 1),), (WORKLOAD,), True),
        (LATE, (), (), True),
    ],
)
def test_nothing_starts_beside_pods_of_an_attempt_that_status_says_is_over(
    seconds: int, pods: Any, children: Any, starts: bool
) -> None:
    over = attempt(reason=Reason.POD_LOST, **FAILED)
    made = decided(over, seconds=seconds, pods=pods, children=children)
    assert (made.run is not None) is starts
    assert names(made) == [f"{c.kind}/{c.name}" for c in children if not c.deleting]
    if not starts:
        assert (made.verdict.reason, made.after) == (Reason.STOPPING, LOOK_EVERY)
        assert "; still there: " in made.verdict.message


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
GOING = pod(1, due=at(221), deleted=at(101))


@pytest.mark.parametrize(
    ("seconds", "record", "left", "children", "runs"),
    [
        (LATE, (), pod(1), (), False),
        (520, (), GOING, (), False),
        (521, (), GOING, (), True),
        (LATE, (), replace(GOING, due=at(LATE + 99), deleted=at(LATE)), (), False),
        (LATE, (), GOING, (WORKLOAD,), False),
        (LATE, (), ended(1, 1), (), True),
        (520, (attempt(reason=Reason.POD_LOST, **FAILED),), GOING, (), False),
        (521, (attempt(reason=Reason.POD_LOST, **FAILED),), GOING, (), True),
        (521, (attempt(),), GOING, (), True),
    ],
)
@pytest.mark.parametrize("known", [True, False])
def test_nothing_is_made_beside_what_may_run_of_any_other_attempt(
    known: bool, seconds: int, record: Any, left: Pod, children: Any, runs: bool
) -> None:
    status = FineTuneJobStatus(attempts=[*record, STARTING])
    seen = Observed(children, pods=(left,) if known else (), kin=() if known else (left,))
    made = decide(job(status), seen, at(seconds), SETTINGS, BACKEND, None)
    assert (made.run is not None) is runs
    assert names(made) == [f"{c.kind}/{c.name}" for c in children]
    assert made.confirm
    if not runs:
        assert made.verdict.message == (
            "attempt 2 waits for pods that run; still there: pod bot-a1-worker-0"
        )


def test_a_workload_that_stands_is_followed_whatever_runs_beside_it() -> None:
    children = (replace(WORKLOAD, name="bot-a2", attempt=2, uid="second"),)
    status = FineTuneJobStatus(attempts=[STARTING])
    seen = Observed(children, kin=(pod(1),))
    assert decide(job(status), seen, at(9), SETTINGS, BACKEND, None).run is not None


def test_the_first_attempt_waits_for_pods_that_status_has_forgotten() -> None:
    seen = Observed(kin=(replace(pod(1), attempt=3),))
    made = decide(job(), seen, at(9), SETTINGS, BACKEND, None)
    assert (made.run, made.attempts, made.verdict.reason) == (None, (), Reason.STOPPING)
