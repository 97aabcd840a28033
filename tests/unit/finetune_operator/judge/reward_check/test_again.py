"""Trials of rewards that end without a pass: which are repeated, and how often."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from finetune_api.status import RewardCheckState
from finetune_contract.reasons import Reason
from finetune_operator.judge.decision import Course
from finetune_operator.observe.observed import Child
from support.operator.reward_trials import (
    decided,
    deleted,
    ended,
    failure,
    grpo,
    pod,
    record,
    seen,
    told,
)
from support.operator.values import UID, at, stamp


@pytest.mark.parametrize("reason", [Reason.REWARD_INVALID, Reason.DATA_NOT_FOUND])
def test_what_only_the_user_can_mend_ends_the_job(reason: Reason) -> None:
    of = grpo()
    decision = decided(of, seen(ended(of, failure(reason), 30)), record(of))
    assert told(decision) == (Course.FAILED, reason)
    assert "bot-rewards: told" in decision.verdict.message
    assert decision.reward_check is not None
    assert decision.reward_check.state is RewardCheckState.FAILED
    assert decision.attempts == ()


@pytest.mark.parametrize(
    ("changes", "allowed"),
    [
        ({"result": None, "code": 137}, 3),
        ({"result": failure(Reason.TRAINER_ERROR), "code": 1}, 2),
    ],
    ids=["lost", "error"],
)
def test_other_ends_are_tried_again_so_many_times(changes: dict[str, Any], allowed: int) -> None:
    of = grpo(runPolicy={"maxAttempts": 2})
    known = record(of)
    for failures in range(1, allowed):
        decision = decided(of, seen(ended(of, **changes)), known)
        assert told(decision) == (Course.PROGRESSING, Reason.RETRYING)
        counted = decision.reward_check
        assert counted is not None
        assert (counted.failures, counted.end_time) == (failures, stamp(30))
        assert decision.after == timedelta(seconds=10 * 2 ** (failures - 1))
        known = record(of, failures=failures)
    last = decided(of, seen(ended(of, **changes)), known)
    assert last.verdict.course is Course.FAILED
    assert f"it was try {allowed}" in last.verdict.message


def test_a_pod_that_was_counted_goes_and_the_next_is_made_after_a_pause() -> None:
    of = grpo()
    counted = record(of, failures=1, end_time=stamp(30))
    old = ended(of, None, 1)
    going = decided(of, seen(old), counted, 60)
    assert deleted(going) == ["bot-rewards"]
    assert not going.run_check
    assert going.reward_check == counted
    assert going.after is not None, "a node that is lost tells nothing"
    stuck = decided(of, seen(replace(old, due=at(31))), counted, 60)
    assert (deleted(stuck), stuck.run_check) == (["bot-rewards"], False), "a lost node keeps it"
    pause = decided(of, seen(replace(old, gone=True)), counted, 39)
    assert told(pause) == (Course.PROGRESSING, Reason.RETRYING)
    assert (pause.run_check, pause.reward_check) == (False, counted)
    assert pause.after == timedelta(seconds=1)
    after = decided(of, seen(replace(old, gone=True)), counted, 40)
    assert after.run_check
    assert after.reward_check == record(of, failures=1, pod_uid=None)
    assert after.after is not None


def test_a_pod_that_was_made_before_its_record_is_not_taken_for_the_one_that_was_counted() -> None:
    of = grpo()
    counted = record(of, failures=1, end_time=stamp(30))
    next_one = decided(of, seen(pod(of, uid="next")), counted, 60)
    assert (deleted(next_one), next_one.run_check) == ([], True)


def test_only_the_pod_is_cleared_away() -> None:
    of = grpo()
    observed = seen(pod(of, digest="older"))
    lease = Child("Lease", "bot-a1", "lease", UID, 1, deleting=False)
    observed = replace(observed, children=(lease, *observed.children))
    assert [c.uid for c in decided(of, observed, record(of)).delete if c.kind == "Pod"] == ["check"]


def test_a_pod_that_vanished_is_counted_once_the_server_says_so_too() -> None:
    of = grpo()
    decision = decided(of, seen(), record(of))
    assert decision.confirm
    assert decision.reward_check is not None
    assert decision.reward_check.failures == 1
    deleted_one = decided(of, seen(pod(of, gone=True)), record(of))
    assert deleted_one.reward_check is not None
    assert deleted_one.reward_check.message == "bot-rewards was deleted"
    with_a_word = decided(of, seen(ended(of, failure(Reason.REWARD_INVALID), 30, gone=True)), None)
    assert with_a_word.run_check, "it is of no known pod"
    with_a_word = decided(
        of, seen(ended(of, failure(Reason.REWARD_INVALID), 30, gone=True)), record(of)
    )
    assert told(with_a_word) == (Course.FAILED, Reason.REWARD_INVALID)
