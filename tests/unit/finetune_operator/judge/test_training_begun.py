"""Credentials that fail once training has begun cost an attempt, not the training."""

from typing import Any

import pytest

from finetune_api.status import AttemptState, FineTuneJobStatus
from finetune_contract.progress import Phase, Progress
from finetune_contract.reasons import Reason, Retry, retry_of
from finetune_operator.judge.decide import decide
from finetune_operator.judge.decision import Course, Decision
from finetune_operator.judge.retry import gives_up
from finetune_operator.observe.observed import Report
from finetune_operator.plan.backends import BACKEND
from finetune_operator.settings import Settings
from support.operator.values import at, attempt, checkpoint_ref, ended, failure, job, seen, stamp

SETTINGS = Settings(trainer_image="t")
STORE_REFUSES = [Reason.ACCESS_DENIED, Reason.OUTPUT_NOT_FOUND]
# Inputs, credentials and machines that served a step can be mended.
COUNTED = {
    *STORE_REFUSES,
    Reason.CREDENTIALS_INVALID,
    Reason.STORAGE_REFUSED,
    Reason.DATA_NOT_FOUND,
    Reason.DATA_INVALID,
    Reason.MODEL_NOT_FOUND,
    Reason.INSUFFICIENT_MEMORY,
    Reason.DEVICE_UNSUPPORTED,
    Reason.ADAPTER_MISMATCH,
    Reason.REWARD_INVALID,
    Reason.SANDBOX_UNAVAILABLE,
}
# A full quota, a registry or a store that is away: it passes.
PASSES = {Reason.BACKEND_REFUSED, Reason.START_TIMEOUT, Reason.STORAGE_UNAVAILABLE}


def failed(number: int, reason: Reason, last_step: int | None = None) -> Any:
    return attempt(
        number,
        state=AttemptState.FAILED,
        reason=reason,
        message="why",
        last_step=last_step,
        end_time=stamp(10),
    )


def ends(told: Any, *reports: Report) -> Decision:
    """What follows when both pods of attempt 1 have ended, the master's with this Result."""
    of = job(FineTuneJobStatus(attempts=[attempt()]))
    pods = (ended(0, 15, result=told), ended(1, 23))
    return decide(of, seen(*pods, reports=reports), at(20), SETTINGS, BACKEND, None)


def training(**fields: Any) -> Report:
    return Report(1, at(0), Progress(phase=Phase.TRAIN, **fields))


def test_the_table_says_what_can_be_mended_once_it_has_served_and_what_passes() -> None:
    others = {r for r in Reason if retry_of(r, begun=True) is not retry_of(r, begun=False)}
    assert others == COUNTED | PASSES
    assert {retry_of(r, begun=True) for r in COUNTED} == {Retry.COUNTED}
    assert {retry_of(r, begun=True) for r in PASSES} == {Retry.WAIT}


@pytest.mark.parametrize("reason", sorted(PASSES))
def test_what_passes_never_ends_a_job_that_has_trained(reason: Reason) -> None:
    settings = Settings(trainer_image="t", max_infrastructure_attempts=3)
    again = [failed(n, reason) for n in range(2, 99)]
    assert gives_up(job(), [failed(1, Reason.POD_LOST, 1), *again], settings) is None
    assert gives_up(job(), [failed(1, Reason.POD_LOST), *again], settings) is not None


def test_what_keeps_pods_from_running_never_ends_a_job_that_has_trained() -> None:
    """An injected init container whose server is away, a node whose devices are: for hours."""
    settings = Settings(trainer_image="t", max_infrastructure_attempts=3)
    for reason in (Reason.INIT_FAILED, Reason.EVICTED, Reason.DISTRIBUTED_FAILURE):
        never_ran = [failed(n, reason) for n in range(2, 99)]
        assert gives_up(job(), [failed(1, Reason.POD_LOST, 1), *never_ran], settings) is None
        assert gives_up(job(), [failed(1, Reason.POD_LOST), *never_ran], settings) is not None
        ran = [a.model_copy(update={"running_time": stamp(5)}) for a in never_ran[:2]]
        mixed = [failed(1, Reason.POD_LOST, 1), ran[0], *never_ran[1:9], ran[1]]
        assert gives_up(job(), mixed[:-1], settings) is None
        assert gives_up(job(), mixed, Settings("t", max_infrastructure_attempts=2)) is not None


@pytest.mark.parametrize("reason", STORE_REFUSES)
def test_before_the_first_step_the_job_ends(reason: Reason) -> None:
    for nothing_done in (None, 0):
        assert gives_up(job(), [failed(1, reason, nothing_done)], SETTINGS) == ""
    assert ends(failure(reason)).verdict.course is Course.FAILED
    assert ends(failure(reason, step=1), training(step=0)).verdict.course is Course.FAILED


@pytest.mark.parametrize("reason", STORE_REFUSES)
@pytest.mark.parametrize(
    ("told", "report"),
    [
        ({}, training(step=1)),
        ({"step": 60}, None),
        ({"checkpoint": checkpoint_ref(40)}, None),
    ],
    ids=["progress", "result", "checkpoint"],
)
def test_once_a_step_is_told_of_it_is_tried_again(
    reason: Reason, told: dict[str, Any], report: Report | None
) -> None:
    decision = ends(failure(reason, **told), *([report] if report else []))
    assert (decision.verdict.course, decision.verdict.reason) == (
        Course.PROGRESSING,
        Reason.RETRYING,
    )
    assert decision.after is not None
    assert decision.attempts[-1].state is AttemptState.FAILED


def test_it_uses_up_the_attempts() -> None:
    policy = job(runPolicy={"maxAttempts": 2})
    first = failed(1, Reason.ACCESS_DENIED, 60)
    assert gives_up(policy, [first], SETTINGS) is None
    assert gives_up(policy, [first, failed(2, Reason.TRAINER_ERROR)], SETTINGS) == (
        "it was attempt 2 of 2"
    )


def test_an_attempt_after_one_that_trained_is_tried_again_before_its_first_step() -> None:
    """The keys are as a rule still the old ones when the next attempt starts."""
    policy = job(runPolicy={"maxAttempts": 3})
    trained = failed(1, Reason.POD_LOST, 60)
    refused = [failed(2, Reason.ACCESS_DENIED), failed(3, Reason.ACCESS_DENIED)]
    assert gives_up(policy, [trained, *refused], SETTINGS) is None
    last = failed(4, Reason.ACCESS_DENIED)
    assert gives_up(policy, [trained, *refused, last], SETTINGS) == "it was attempt 3 of 3"


def test_what_came_before_the_first_step_of_the_job_was_not_counted() -> None:
    early, late = failed(1, Reason.ACCESS_DENIED), failed(2, Reason.TRAINER_ERROR, 60)
    assert gives_up(job(runPolicy={"maxAttempts": 2}), [early, late], SETTINGS) is None
