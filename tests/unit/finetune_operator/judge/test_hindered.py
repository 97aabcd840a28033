"""What follows where the objects of a decision can not be made: until when that is waited for."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from finetune_api.status import AttemptState, RewardCheckState, RewardCheckStatus
from finetune_contract.reasons import Reason
from finetune_operator.job.errors import Stalled, Waiting
from finetune_operator.judge.decision import Course, Decision, Verdict
from finetune_operator.judge.fallback import hindered
from support.operator.decisions import FAILED, SETTINGS, decided
from support.operator.values import at, attempt, stamp

REFUSED = Stalled(Reason.BACKEND_REFUSED, "denied by policy")
FULL = Waiting(Reason.BACKEND_REFUSED, "exceeded quota", 30)
AWAY = Waiting(Reason.BACKEND_UNAVAILABLE, "no webhook", 30)
NEW = attempt(2, state="Starting", workload_uid=None)
FIRST = attempt(**FAILED)
TRAINED = attempt(**FAILED, last_step=1)


def starting(*attempts: Any, within: float | None = None) -> Decision:
    left = None if within is None else timedelta(seconds=within)
    return Decision(attempts, decided().verdict, run=attempts[-1], within=left)


def checking(**fields: Any) -> Decision:
    known = {"state": RewardCheckState.RUNNING, "plan": "x", "start_time": stamp(0)}
    check = RewardCheckStatus(**{**known, **fields})
    pending = Verdict(Course.PROGRESSING, Reason.PENDING)
    return Decision((), pending, reward_check=check, run_check=True)


def test_a_refusal_ends_the_newest_attempt_and_leaves_the_others() -> None:
    long = Stalled(Reason.BACKEND_REFUSED, "x" * 5_000)
    made = hindered(starting(FIRST, NEW), long, at(5), SETTINGS)
    assert made.attempts[0] == FIRST
    over = made.attempts[1]
    assert (over.number, over.state, over.end_time) == (2, AttemptState.FAILED, stamp(5))
    assert len(over.message or "") == 1024
    assert (made.run, made.verdict.course) == (None, Course.FAILED)


@pytest.mark.parametrize("why", [FULL, AWAY])
def test_what_passes_is_waited_for_as_long_as_pods_are_that_do_not_start(why: Waiting) -> None:
    waits = hindered(starting(FIRST, NEW), why, at(599), SETTINGS)
    assert (waits.attempts, waits.run) == ((FIRST, NEW), NEW)
    assert (waits.verdict.course, waits.verdict.reason) == (Course.PROGRESSING, why.reason)
    assert waits.verdict.message.startswith(f"{why.message}; ")
    assert waits.after == timedelta(seconds=1)
    over = hindered(starting(FIRST, NEW), why, at(600), SETTINGS)
    assert (over.verdict.course, over.verdict.reason) == (Course.FAILED, Reason.START_TIMEOUT)
    assert (over.run, over.attempts[1].state) == (None, AttemptState.FAILED)
    assert over.attempts[1].message == f"{why.reason}: {why.message}"


@pytest.mark.parametrize("why", [FULL, AWAY, REFUSED])
@pytest.mark.parametrize(
    "attempts", [(TRAINED, NEW), (FIRST, NEW.model_copy(update={"workload_uid": "made"}))]
)
def test_a_job_that_has_trained_or_is_at_work_waits(attempts: Any, why: Any) -> None:
    made = hindered(starting(*attempts), why, at(100_000), SETTINGS)
    assert (made.attempts, made.run) == (attempts, attempts[-1])
    assert (made.verdict.course, made.verdict.reason) == (Course.PROGRESSING, why.reason)
    assert made.after == timedelta(seconds=30)
    soon = hindered(starting(*attempts, within=7), why, at(100_000), SETTINGS)
    assert soon.after == timedelta(seconds=7), "its deadline is then"


@pytest.mark.parametrize(
    ("seconds", "why", "fields", "ends"),
    [
        (599, FULL, {}, None),
        (600, FULL, {}, Reason.START_TIMEOUT),
        (600, FULL, {"failures": 1}, None),
        (0, REFUSED, {}, Reason.BACKEND_REFUSED),
        (0, REFUSED, {"failures": 1}, Reason.BACKEND_REFUSED),
    ],
)
def test_a_check_of_rewards_waits_likewise(
    seconds: int, why: Any, fields: Any, ends: Reason | None
) -> None:
    decision = checking(**fields)
    made = hindered(decision, why, at(seconds), SETTINGS)
    if ends is None:
        assert made == replace(decision, verdict=made.verdict, after=made.after)
        assert made.verdict.reason is why.reason
    else:
        assert (made.verdict.course, made.verdict.reason) == (Course.FAILED, ends)
        assert made.reward_check is not None
        assert made.reward_check.state is RewardCheckState.FAILED
        assert why.message in (made.reward_check.message or "")
