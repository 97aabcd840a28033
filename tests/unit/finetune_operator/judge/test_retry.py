"""What follows an end is what the table of reasons says, counted as the user asked."""

from typing import Any

import pytest

from finetune_api.status import AttemptState
from finetune_contract.reasons import TABLE, Reason, Retry
from finetune_operator.judge.retry import active_time, backoff, gives_up
from finetune_operator.settings import Settings
from support.operator.values import at, attempt, job, stamp

SETTINGS = Settings(trainer_image="t", max_infrastructure_attempts=3)


def failed(*reasons: Reason, **fields: Any) -> list[Any]:
    return [
        attempt(n, state=AttemptState.FAILED, reason=reason, **fields)
        for n, reason in enumerate(reasons, 1)
    ]


@pytest.mark.parametrize("reason", [r for r in Reason if TABLE[r].retry is Retry.NEVER])
def test_some_reasons_end_the_job_at_once(reason: Reason) -> None:
    assert gives_up(job(), failed(reason), SETTINGS) is not None


@pytest.mark.parametrize("reason", [Reason.TRAINER_ERROR, Reason.OUT_OF_MEMORY])
def test_counted_reasons_use_up_the_attempts(reason: Reason) -> None:
    policy = job(runPolicy={"maxAttempts": 2})
    assert gives_up(policy, failed(reason, micro_batch_size=8), SETTINGS) is None
    twice = failed(Reason.TRAINER_ERROR, reason, micro_batch_size=8)
    assert gives_up(policy, twice, SETTINGS) == "it was attempt 2 of 2"


def test_the_infrastructure_has_a_count_of_its_own() -> None:
    policy = job(runPolicy={"maxAttempts": 1})
    two = failed(Reason.POD_LOST, Reason.EVICTED)
    assert gives_up(policy, two, SETTINGS) is None
    three = failed(Reason.POD_LOST, Reason.EVICTED, Reason.RESULT_LOST)
    assert gives_up(policy, three, SETTINGS) == "the infrastructure ended 3 attempts"
    mixed = failed(Reason.POD_LOST, Reason.EVICTED, Reason.TRAINER_ERROR)
    assert gives_up(policy, mixed, SETTINGS) == "it was attempt 1 of 1"


def lost(number: int, last: int | None, lost: int | None, reason: Reason = Reason.EVICTED) -> Any:
    ran = {"running_time": stamp(1), "last_step": last, "lost_steps": lost}
    return attempt(number, reason=reason, **ran)


def test_a_job_that_gets_further_each_time_is_not_given_up() -> None:
    further = [lost(n, n * 10, 4) for n in range(1, 50)]
    assert gives_up(job(), further, SETTINGS) is None
    stuck = [lost(50, 496, 10), lost(51, None, None)]
    assert gives_up(job(), [*further, *stuck[:1]], SETTINGS) is None
    assert gives_up(job(), [*further, *stuck], SETTINGS) == "the infrastructure ended 3 attempts"
    other = lost(50, 500, 0, Reason.TRAINER_ERROR)
    assert gives_up(job(), [*further, other, *stuck], SETTINGS) is None


def test_what_only_the_user_can_bring_is_not_waited_for_without_end_before_a_step() -> None:
    come = (Reason.UNSCHEDULABLE, Reason.QUEUED)  # of themselves
    waits = [r for r in Reason if TABLE[r].retry is Retry.WAIT and r not in come]
    for reason in waits:
        assert gives_up(job(), failed(*[reason] * 2), SETTINGS) is None
        assert gives_up(job(), failed(*[reason] * 3), SETTINGS) is not None
        assert gives_up(job(), failed(*[reason] * 9, last_step=1), SETTINGS) is None
    assert gives_up(job(), failed(*[Reason.UNSCHEDULABLE] * 9), SETTINGS) is None


def test_out_of_memory_is_final_where_nothing_takes_less() -> None:
    least = failed(Reason.OUT_OF_MEMORY, micro_batch_size=1, gradient_checkpointing=True)
    assert gives_up(job(), failed(Reason.OUT_OF_MEMORY, micro_batch_size=1), SETTINGS) is None
    assert gives_up(job(), least, SETTINGS) == (
        "microBatchSize is 1 already, gradientCheckpointing is Always, "
        "without GPUs nothing can be offloaded"
    )


def test_a_suspension_is_no_failure() -> None:
    assert gives_up(job(), failed(Reason.SUSPENDED), SETTINGS) is None


def test_the_back_off_doubles_to_its_cap_and_starts_anew_after_a_suspension() -> None:
    settings = Settings(trainer_image="t", retry_base_seconds=10, retry_cap_seconds=35)
    delays = [backoff(failed(*[Reason.POD_LOST] * n), settings).seconds for n in range(5)]
    assert delays == [0, 10, 20, 35, 35]
    suspended = [*failed(Reason.POD_LOST), attempt(2, state=AttemptState.SUSPENDED)]
    assert backoff(suspended, settings).seconds == 0
    assert backoff(failed(*[Reason.POD_LOST] * 2000), settings).seconds == 35


def test_what_is_tried_for_as_long_as_it_takes_is_tried_ever_more_rarely() -> None:
    settings = Settings(trainer_image="t", retry_base_seconds=1000, retry_cap_seconds=1500)
    vain = [Reason.UNSCHEDULABLE] * 4
    assert [backoff(failed(*vain[:n]), settings).seconds for n in (1, 2, 3, 4)] == [
        *(1000, 2000, 3600, 3600)
    ]
    once = failed(*vain, Reason.POD_LOST)
    assert backoff(once, settings).seconds == 1500
    patient = Settings(trainer_image="t", retry_base_seconds=9000, retry_cap_seconds=7200)
    assert backoff(failed(*vain), patient).seconds == 7200


def test_what_is_tried_for_the_first_time_is_tried_soon_whatever_was_before() -> None:
    settings = Settings(trainer_image="t", retry_base_seconds=1000, retry_cap_seconds=1500)
    before = [Reason.UNSCHEDULABLE, *[Reason.POD_LOST] * 9]
    delays = [
        backoff(failed(*before, *[Reason.UNSCHEDULABLE] * n), settings).seconds for n in (1, 2, 3)
    ]
    assert delays == [1500, 2000, 3600]


def test_so_is_what_keeps_a_job_that_has_trained_from_running() -> None:
    settings = Settings(trainer_image="t", retry_base_seconds=1000, retry_cap_seconds=1500)
    trained = lost(1, 10, 0)
    kept_off = failed(*[Reason.POD_LOST] * 5)[1:]
    assert gives_up(job(), [trained, *kept_off], SETTINGS) is None
    delays = [backoff([trained, *kept_off[:n]], settings).seconds for n in (1, 2, 3)]
    assert delays == [1000, 2000, 3600]
    ran = failed(*[Reason.POD_LOST] * 5, running_time=stamp(1))[1:]
    assert backoff([trained, *ran], settings).seconds == 1500, "so many of these end it"


def test_active_time_adds_up_what_ran() -> None:
    first = attempt(1, start_time=stamp(0), end_time=stamp(30))
    second = attempt(2, start_time=stamp(100))
    assert active_time([first, second], at(110)).seconds == 40
    assert active_time([attempt(1, start_time=stamp(50))], at(0)).seconds == 0
