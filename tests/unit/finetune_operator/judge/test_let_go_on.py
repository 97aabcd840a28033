"""A job that has failed goes on when the user raises retries; what was before does not count."""

from datetime import timedelta
from typing import Any

import pytest

from finetune_api.status import (
    AttemptState,
    Condition,
    ConditionType,
    FineTuneJobStatus,
    RetryStatus,
    RewardCheckState,
    RewardCheckStatus,
)
from finetune_contract.reasons import Reason
from finetune_operator.judge.decide import decide
from finetune_operator.judge.decision import Course, Decision
from finetune_operator.judge.status import status_of
from finetune_operator.observe.observed import Observed
from finetune_operator.plan.backends import BACKEND
from support.operator.decisions import SETTINGS, names
from support.operator.reward_trials import deleted, digest, grpo
from support.operator.reward_trials import ended as check_ended
from support.operator.reward_trials import seen as checks_seen
from support.operator.values import at, attempt, job, stamp

ONCE = RetryStatus(retries=1, after_attempt=0)


def over(succeeded: str = "False") -> list[Condition]:
    kind, reason = ConditionType.SUCCEEDED, "DataInvalid"
    return [Condition(type=kind, status=succeeded, reason=reason, last_transition_time=stamp(60))]


def failed(number: int, reason: Reason = Reason.DATA_INVALID, **fields: Any) -> Any:
    known = {"state": AttemptState.FAILED, "end_time": stamp(50), "message": "why"}
    return attempt(number, reason=reason, **{**known, **fields})


def decided(
    *attempts: Any, retry: Any = None, conditions: Any = None, seconds: float = 70, **policy: Any
) -> tuple[Decision, FineTuneJobStatus]:
    conditions = over() if conditions is None else conditions
    status = FineTuneJobStatus(attempts=list(attempts), conditions=conditions, retry=retry)
    of = job(status, runPolicy=policy)
    made = decide(of, Observed(), at(seconds), SETTINGS, BACKEND, None)
    return made, status_of(of, Observed(), made, at(seconds), SETTINGS)


def test_it_goes_on_at_once_and_the_record_says_after_which_attempt() -> None:
    made, status = decided(failed(1), failed(2), retries=1)
    assert made.run is not None
    assert (made.run.number, made.verdict.course) == (3, Course.PROGRESSING)
    assert status.retry == RetryStatus(retries=1, after_attempt=2)
    assert [c.status for c in status.conditions or () if c.type == "Succeeded"] == ["Unknown"]


@pytest.mark.parametrize(
    ("retries", "known", "succeeded"),
    [(0, None, "False"), (1, ONCE, "False"), (0, ONCE, "False"), (2, ONCE, "True")],
)
def test_it_does_not_unless_it_failed_and_more_is_asked_for_than_before(
    retries: int, known: Any, succeeded: str
) -> None:
    made, status = decided(failed(1), retry=known, conditions=over(succeeded), retries=retries)
    assert (made.run, made.verdict.course) == (None, Course.KEPT)
    assert status.retry == known


@pytest.mark.parametrize("known", [None, ONCE, RetryStatus(retries=9, after_attempt=1)])
def test_what_was_asked_for_before_the_failure_means_nothing(known: Any) -> None:
    under_way = attempt(2, state="Starting")
    _, status = decided(failed(1), under_way, retry=known, conditions=[], retries=3)
    after = known.after_attempt if known else 0
    assert status.retry == RetryStatus(retries=3, after_attempt=after)
    made, _ = decided(failed(1), failed(2), retry=status.retry, retries=3)
    assert made.run is None


def test_attempts_backoff_and_deadline_count_anew() -> None:
    since = RetryStatus(retries=1, after_attempt=3)
    before = [failed(n, Reason.TRAINER_ERROR) for n in (1, 2, 3)]
    one = failed(4, Reason.TRAINER_ERROR, start_time=stamp(62), end_time=stamp(65))
    policy = {"retries": 1, "maxAttempts": 2}
    made, _ = decided(*before, one, retry=since, conditions=[], seconds=65, **policy)
    assert (made.verdict.reason, made.after) == (Reason.RETRYING, timedelta(seconds=10))
    two = one.model_copy(update={"number": 5})
    made, _ = decided(*before, one, two, retry=since, conditions=[], **policy)
    assert made.verdict.course is Course.FAILED
    assert "it was attempt 2 of 2" in made.verdict.message
    policy = {"retries": 1, "activeDeadlineSeconds": 4}
    made, _ = decided(*before, one, retry=since, conditions=[], **policy)
    assert made.verdict.course is Course.PROGRESSING
    policy["activeDeadlineSeconds"] = 3
    made, _ = decided(*before, one, retry=since, conditions=[], **policy)
    assert made.verdict.reason is Reason.DEADLINE_EXCEEDED


def test_a_check_before_the_failure_has_no_part_in_the_deadline() -> None:
    long = RewardCheckStatus(
        state=RewardCheckState.PASSED, plan="p", start_time=stamp(0), end_time=stamp(40)
    )
    one = failed(2, Reason.TRAINER_ERROR, start_time=stamp(62), end_time=stamp(65))
    for after, course in ((1, Course.PROGRESSING), (0, Course.FAILED)):
        since = RetryStatus(retries=1, after_attempt=after)
        attempts = [failed(1, start_time=stamp(50)), one]
        status = FineTuneJobStatus(attempts=attempts, retry=since, reward_check=long)
        of = job(status, runPolicy={"retries": 1, "activeDeadlineSeconds": 30})
        made = decide(of, Observed(), at(70), SETTINGS, BACKEND, None)
        assert made.verdict.course is course


def test_infrastructure_counts_anew() -> None:
    cap = SETTINGS.max_infrastructure_attempts
    lost = [failed(n, Reason.POD_LOST) for n in range(1, cap + 1)]
    made, status = decided(*lost, retries=1)
    assert made.run is not None
    more = [failed(cap + n, Reason.POD_LOST) for n in range(1, cap)]
    made, _ = decided(*lost, *more, retry=status.retry, conditions=[], retries=1)
    assert made.verdict.course is Course.PROGRESSING
    more.append(failed(2 * cap, Reason.POD_LOST))
    made, _ = decided(*lost, *more, retry=status.retry, conditions=[], retries=1)
    assert made.verdict.course is Course.FAILED


def test_a_smallest_batch_that_ran_out_of_memory_is_tried_again() -> None:
    out = failed(1, Reason.OUT_OF_MEMORY, micro_batch_size=1)
    made, _ = decided(out, retries=1)
    assert made.run is not None
    assert made.run.micro_batch_size == 1


def test_a_suspended_job_goes_on_once_it_may_run() -> None:
    made, status = decided(failed(1), retries=1, suspend=True)
    assert (made.run, made.verdict.course) == (None, Course.SUSPENDED)
    assert status.retry == RetryStatus(retries=1, after_attempt=1)
    conditions = status.conditions
    made, _ = decided(failed(1), retry=status.retry, conditions=conditions, retries=1)
    assert made.run is not None


def test_rewards_that_were_no_good_are_tried_anew_once_the_last_pod_is_gone() -> None:
    of = grpo(runPolicy={"retries": 1, "activeDeadlineSeconds": 19})
    check = RewardCheckStatus(
        state=RewardCheckState.FAILED,
        plan=digest(of),
        pod_uid="check",
        failures=3,
        start_time=stamp(1),
        end_time=stamp(20),
        message="why",
    )
    status = FineTuneJobStatus(conditions=over(), reward_check=check)
    there = checks_seen(check_ended(of, None, 1))

    def follow(status: FineTuneJobStatus, observed: Observed) -> Decision:
        told = of.model_copy(update={"status": status})
        return decide(told, observed, at(70), SETTINGS, BACKEND, digest(of))

    made = follow(status, there)
    assert (deleted(made), made.run_check) == (["bot-rewards"], False)
    assert made.retry == RetryStatus(retries=1, after_attempt=0)
    record = made.reward_check
    assert record is not None
    assert (record.state, record.failures) == (RewardCheckState.RUNNING, 0)
    again = FineTuneJobStatus(reward_check=record, retry=made.retry)
    assert follow(again, Observed()).run_check
    assert names(follow(again, Observed())) == []
