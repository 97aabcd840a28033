"""What is left of a job that is over, and for how long."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from finetune_api.status import (
    AttemptState,
    Condition,
    ConditionType,
    FineTuneJobStatus,
)
from finetune_contract.reasons import Reason
from finetune_operator.judge.decide import decide
from finetune_operator.judge.decision import Course
from finetune_operator.observe.observed import Child
from finetune_operator.plan.backends import BACKEND
from support.operator import reward_trials
from support.operator.decisions import (
    ACCOUNT,
    FAILED,
    LEASE,
    SETTINGS,
    WORKLOAD,
    decided,
    last_state,
    names,
    stopping,
)
from support.operator.values import at, attempt, ended, pod, stamp

SUCCEEDED = [
    Condition(
        type=ConditionType.SUCCEEDED,
        status="True",
        reason="Succeeded",
        last_transition_time=stamp(100),
    )
]


@pytest.mark.parametrize(
    ("seconds", "ttl", "deleted", "after"),
    [
        (159, 60, [], 1),
        (160, 60, ["Lease/bot-a1", "ServiceAccount/bot-finetune"], None),
        (9_999, None, [], None),
    ],
)
def test_children_live_as_long_as_the_user_says(
    seconds: int, ttl: int | None, deleted: list[str], after: int | None
) -> None:
    policy = {"ttlSecondsAfterFinished": ttl} if ttl else {}
    made = decided(
        attempt(**FAILED),
        seconds=seconds,
        children=(LEASE, ACCOUNT),
        conditions=SUCCEEDED,
        runPolicy=policy,
    )
    assert names(made) == deleted
    assert made.after == (timedelta(seconds=after) if after else None)
    assert made.run is None
    assert decided(conditions=SUCCEEDED).run is None, "even without a record of attempts"


ENDED = (ended(0, 0), ended(1, 0))
HELD = (replace(ENDED[0], phase="Running"), ENDED[1])
OVER, OPEN = replace(WORKLOAD, outcome=True), WORKLOAD
GOING = replace(OPEN, deleting=True)


@pytest.mark.parametrize(
    ("seconds", "pods", "workload", "goes", "after"),
    [
        (129, HELD, OPEN, False, 1),
        (130, HELD, OPEN, True, None),
        (129, HELD, OVER, False, 1),
        (130, HELD, OVER, True, None),
        (130, ENDED, OPEN, True, None),
        (130, HELD, GOING, False, 30),
        (100, ENDED, OVER, False, None),
        (9_999, ENDED, OVER, False, None),
        (9_999, (*HELD[1:], replace(HELD[0], gone=True)), OVER, False, None),
        (130, HELD, None, False, 30),
    ],
)
@pytest.mark.parametrize("state", ["Succeeded", "Failed"])
def test_what_holds_the_pods_of_a_finished_job_is_deleted_after_a_while(
    state: str, seconds: int, pods: Any, workload: Child | None, goes: bool, after: int | None
) -> None:
    assert BACKEND.clean_up == timedelta(seconds=30)
    record = attempt(**{**FAILED, "state": state})
    children = (workload, ACCOUNT) if workload else (ACCOUNT,)
    made = decided(record, seconds=seconds, pods=pods, children=children, conditions=SUCCEEDED)
    assert names(made) == (["PyTorchJob/bot-a1"] if goes else [])
    assert made.after == (timedelta(seconds=after) if after else None)
    assert made.attempts == (record,)


def test_the_next_attempt_need_not_wait_for_sidecars_of_the_last() -> None:
    made = decided(stopping(), seconds=101, pods=HELD)
    assert last_state(made) is AttemptState.FAILED
    runs = decided(stopping(), seconds=101, pods=(pod(0), ENDED[1]))
    assert last_state(runs) is AttemptState.STOPPING


def test_time_to_live_may_be_over_before_that() -> None:
    record, policy = attempt(**FAILED), {"ttlSecondsAfterFinished": 20}
    made = decided(
        record, seconds=119, pods=HELD, children=(OPEN,), conditions=SUCCEEDED, runPolicy=policy
    )
    assert (names(made), made.after) == ([], timedelta(seconds=1))


def test_a_job_whose_conditions_were_lost_has_still_succeeded() -> None:
    over = attempt(state=AttemptState.SUCCEEDED, end_time=stamp(9), reason=Reason.SUCCEEDED)
    made = decided(over, seconds=99, children=(WORKLOAD,))
    assert (made.verdict.course, made.run, made.delete) == (Course.SUCCEEDED, None, ())
    assert made.attempts == (over,)


@pytest.mark.parametrize(("seconds", "looks", "gone"), [(139, 1, []), (140, None, ["bot-rewards"])])
def test_what_tried_the_rewards_and_does_not_go_is_taken_away(
    seconds: float, looks: float | None, gone: list[str]
) -> None:
    of = reward_trials.grpo()
    seen = reward_trials.seen(reward_trials.pod(of, due=at(140)))
    over = of.model_copy(update={"status": FineTuneJobStatus(conditions=SUCCEEDED)})
    made = decide(over, seen, at(seconds), SETTINGS, BACKEND, None)
    assert [child.name for child in made.delete] == gone
    assert made.after == (looks and timedelta(seconds=looks))
