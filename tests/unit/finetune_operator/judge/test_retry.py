"""What follows an end is what the table of reasons says, counted as the user asked."""

from typing import Any

import pytest

from finetune_api.status import AttemptState
from finetune_contract.reasons import TABLE, Reason, Retry
from finetune_operator.judge.retry import active_time, backoff, gives_up, next_micro_batch
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
    return attempt(number, reason=reason, last_step=last, lost_steps=lost)


def test_a_job_that_gets_further_each_time_is_not_given_up() -> None:
    further = [lost(n, n * 10, 4) for n in range(1, 50)]
    assert gives_up(job(), further, SETTINGS) is None
    stuck = [lost(50, 496, 10), lost(51, None, None)]
    assert gives_up(job(), [*further, *stuck[:1]], SETTINGS) is None
    assert gives_up(job(), [*further, *stuck], SETTINGS) == "the infrastructure ended 3 attempts"
    other = lost(50, 500, 0, Reason.TRAINER_ERROR)
    assert gives_up(job(), [*further, other, *stuck], SETTINGS) is None


def test_what_only_the_user_can_bring_is_not_waited_for_without_end_before_a_step() -> None:
    waits = [r for r in Reason if TABLE[r].retry is Retry.WAIT and r is not Reason.UNSCHEDULABLE]
    for reason in waits:
        assert gives_up(job(), failed(*[reason] * 2), SETTINGS) is None
        assert gives_up(job(), failed(*[reason] * 3), SETTINGS) is not None
        assert gives_up(job(), failed(*[reason] * 9, last_step=1), SETTINGS) is None
    assert gives_up(job(), failed(*[Reason.UNSCHEDULABLE] * 9), SETTINGS) is None


def test_out_of_memory_at_a_micro_batch_of_one_is_final() -> None:
    why = gives_up(job(), failed(Reason.OUT_OF_MEMORY, micro_batch_size=1), SETTINGS)
    assert why == "microBatchSize is 1 already"


def test_a_suspension_is_no_failure() -> None:
    assert gives_up(job(), failed(Reason.SUSPENDED), SETTINGS) is None


def test_the_back_off_doubles_to_its_cap_and_starts_anew_after_a_suspension() -> None:
    settings = Settings(trainer_image="t", retry_base_seconds=10, retry_cap_seconds=35)
    delays = [backoff(failed(*[Reason.POD_LOST] * n), settings).seconds for n in range(5)]
    assert delays == [0, 10, 20, 35, 35]
    suspended = [*failed(Reason.POD_LOST), attempt(2, state=AttemptState.SUSPENDED)]
    assert backoff(suspended, settings).seconds == 0
    assert backoff(failed(*[Reason.POD_LOST] * 2000), settings).seconds == 35


@pytest.mark.parametrize(
    ("batch", "micro", "following"),
    [(32, 4, 2), (15, 5, 1), (10, 5, 2), (24, 12, 6), (12, 6, 3), (36, 9, 4)],
)
def test_the_next_micro_batch_is_at_most_half_and_divides(
    batch: int, micro: int, following: int
) -> None:
    of = job(training={"globalBatchSize": batch}, workers={"replicas": 1})
    assert next_micro_batch(of, failed(Reason.OUT_OF_MEMORY, micro_batch_size=micro)) == following


def test_without_an_end_by_memory_the_micro_batch_is_the_jobs() -> None:
    two = job(training={"microBatchSize": 2})
    assert next_micro_batch(two, []) == 2
    assert next_micro_batch(two, failed(Reason.POD_LOST, micro_batch_size=2)) == 2
    assert next_micro_batch(job(), failed(Reason.POD_LOST, micro_batch_size=8)) is None


def test_after_an_end_by_memory_it_is_never_larger_again() -> None:
    small = failed(Reason.OUT_OF_MEMORY, micro_batch_size=8)
    lost = attempt(2, state=AttemptState.FAILED, reason=Reason.POD_LOST, micro_batch_size=4)
    assert next_micro_batch(job(), [*small, lost]) == 4
    again = attempt(3, state=AttemptState.FAILED, reason=Reason.OUT_OF_MEMORY, micro_batch_size=4)
    assert next_micro_batch(job(), [*small, lost, again]) == 2


def test_out_of_memory_before_auto_was_told_leaves_the_least() -> None:
    unknown = failed(Reason.OUT_OF_MEMORY, micro_batch_size=None)
    assert next_micro_batch(job(), unknown) == 1
    assert gives_up(job(), unknown, SETTINGS) is None


def test_active_time_adds_up_what_ran() -> None:
    first = attempt(1, start_time=stamp(0), end_time=stamp(30))
    second = attempt(2, start_time=stamp(100))
    assert active_time([first, second], at(110)).seconds == 40
    assert active_time([attempt(1, start_time=stamp(50))], at(0)).seconds == 0
