"""What a trainer told is kept, never goes back, and is never another attempt's."""

from dataclasses import replace
from typing import Any

import pytest

from finetune_api.status import Attempt, FineTuneJobStatus, ProgressStatus
from finetune_contract.checkpoint import CheckpointRef
from finetune_contract.progress import Phase, Progress
from finetune_contract.reasons import Reason
from finetune_contract.result import Outcome, Result
from finetune_operator.judge.told import Told, accounted, checkpoint, corrected, learned, told
from finetune_operator.observe.observed import Observed, Pod, Report
from support.operator.values import (
    UID,
    at,
    attempt,
    checkpoint_ref,
    ended,
    job,
    resolved,
    stamp,
)


def report(number: int = 1, **of: Any) -> Report:
    return Report(number, at(0), Progress(phase=Phase.TRAIN, **of))


def result(number: int = 1, reason: Reason = Reason.INTERRUPTED, **of: Any) -> Result:
    outcome = Outcome.SUCCEEDED if reason is Reason.SUCCEEDED else Outcome.FAILED
    return Result(attempt=number, outcome=outcome, reason=reason, **of)


def pod_of(number: int, told_result: Result | None, rank: int = 0) -> Pod:
    return replace(ended(rank, 24, result=told_result), attempt=number)


def heard(*pods: Pod, reports: tuple[Report, ...] = (), number: int = 1) -> Told:
    return told(job(), Observed(pods=pods, reports=reports), number)


def test_of_nothing_nothing_is_known() -> None:
    assert heard() == Told()
    assert heard(pod_of(1, None)) == Told()


def test_progress_tells_all_of_it() -> None:
    plan = resolved(4)
    said = heard(reports=(report(step=9, resumed_step=6, checkpoint=checkpoint_ref(8), plan=plan),))
    assert said == Told(plan, checkpoint_ref(8), 6, 9)


def test_what_a_result_tells_goes_before_older_progress() -> None:
    early = report(step=7, checkpoint=checkpoint_ref(6), plan=resolved(4))
    last = result(step=8, checkpoint=checkpoint_ref(8), plan=resolved(2))
    said = heard(pod_of(1, last), reports=(early,))
    assert (said.last_step, said.checkpoint, said.plan) == (8, checkpoint_ref(8), last.plan)
    assert heard(pod_of(1, result(step=3)), reports=(early,)).last_step == 7


@pytest.mark.parametrize(
    ("reason", "step", "done"),
    [
        (Reason.INTERRUPTED, 8, 8),
        (Reason.SUCCEEDED, 8, 8),
        (Reason.OUT_OF_MEMORY, 8, 7),
        (Reason.NON_FINITE_LOSS, 0, 0),
        (Reason.TRAINER_ERROR, None, None),
    ],
)
def test_a_failure_names_the_step_under_way(
    reason: Reason, step: int | None, done: int | None
) -> None:
    assert heard(pod_of(1, result(reason=reason, step=step))).last_step == done


def test_any_pod_of_the_attempt_is_heard_and_no_other() -> None:
    second = pod_of(1, result(step=5), rank=1)
    assert heard(pod_of(1, None), second).last_step == 5
    assert heard(second, reports=(report(2, step=9),), number=2).last_step == 9
    assert heard(second, number=2) == Told()
    both = (report(1, step=5, resumed_step=2), report(2, step=9, resumed_step=5))
    assert (heard(reports=both, number=2).last_step, heard(reports=both).last_step) == (9, 5)
    assert heard(reports=both[:1], number=2) == Told()
    posing = pod_of(2, result(1, step=5))
    assert heard(posing, number=2) == Told()


def test_a_checkpoint_outside_of_the_output_is_none() -> None:
    elsewhere = checkpoint_ref(8).model_copy(update={"uri": "s3://adapters/bot-of-another/8"})
    assert heard(reports=(report(checkpoint=elsewhere),)).checkpoint is None


def test_of_checkpoints_of_one_step_the_later_attempts_is_the_newest() -> None:
    first, second = checkpoint_ref(8), checkpoint_ref(8, number=2)
    for pair in [(first, second), (second, first)]:
        pods = [pod_of(2, result(2, checkpoint=ref), rank) for rank, ref in enumerate(pair)]
        assert heard(*pods, number=2).checkpoint == second


def test_an_attempt_that_only_resumed_stands_where_it_began() -> None:
    assert heard(reports=(report(resumed_step=6),)).last_step == 6
    assert heard(reports=(report(checkpoint=checkpoint_ref(6)),)).last_step == 6


KNOWN = CheckpointRef(uri=f"s3://adapters/bot/runs/{UID}/a1/checkpoints/6", step=6, attempt=1)


def newest(*pods: Pod, reports: tuple[Report, ...] = (), waits: int | None = None) -> Any:
    return checkpoint(job(), KNOWN, Observed(pods=pods, reports=reports), waits)


def test_the_newest_checkpoint_of_any_attempt_counts_and_never_goes_back() -> None:
    assert newest() is KNOWN
    assert newest(reports=(report(2, checkpoint=checkpoint_ref(4, 2)),)) is KNOWN
    assert newest(reports=(report(2, checkpoint=checkpoint_ref(6, 2)),)) is KNOWN
    later = newest(reports=(report(2, checkpoint=checkpoint_ref(7, 2)),))
    assert (later.step, later.attempt, later.uri) == (7, 2, checkpoint_ref(7, 2).uri)
    words = pod_of(1, result(checkpoint=checkpoint_ref(9)))
    assert newest(words, reports=(report(2, checkpoint=checkpoint_ref(7, 2)),)).step == 9


def test_a_report_that_is_not_followed_yet_is_left_out() -> None:
    one, two = report(1, checkpoint=checkpoint_ref(8)), report(2, checkpoint=checkpoint_ref(9, 2))
    assert newest(reports=(one, two), waits=2).step == 8
    assert newest(reports=(two,), waits=2) is KNOWN


def test_what_the_trainer_chose_is_kept_once_told() -> None:
    auto = attempt(micro_batch_size=None)
    said = Told(plan=resolved(4), resumed_step=0)
    first = learned(auto, said)
    assert (first.micro_batch_size, first.resumed_step) == (4, 0)
    again = learned(first, Told(plan=resolved(8), resumed_step=3))
    assert again == first
    assert learned(first, Told()) == first


def account(of: Attempt, said: Told, **status: Any) -> tuple[int | None, int | None]:
    done = accounted(of, said, FineTuneJobStatus(**status))
    return done.last_step, done.lost_steps


def progress(number: int, step: int | None) -> ProgressStatus:
    return ProgressStatus(
        attempt=number,
        phase=Phase.TRAIN,
        summary="",
        done=0,
        step=step,
        last_report_time=stamp(0),
    )


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (Told(), (None, None)),
        (Told(last_step=5), (5, 5)),
        (Told(last_step=8, checkpoint=checkpoint_ref(6)), (8, 2)),
        (Told(last_step=8, checkpoint=checkpoint_ref(8)), (8, 0)),
        (Told(last_step=8, resumed_step=6), (8, 2)),
        (Told(last_step=8, resumed_step=6, checkpoint=checkpoint_ref(7)), (8, 1)),
        (Told(last_step=6, resumed_step=6), (6, 0)),
    ],
)
def test_lost_is_what_was_done_after_the_last_checkpoint(
    said: Told, expected: tuple[int | None, int | None]
) -> None:
    assert account(attempt(), said) == expected


def test_what_status_knows_counts_where_the_lease_is_gone() -> None:
    assert account(attempt(), Told(), progress=progress(1, 8), checkpoint=KNOWN) == (8, 2)
    assert account(attempt(last_step=9), Told(), progress=progress(1, 8)) == (9, 9)
    assert account(attempt(), Told(), progress=progress(1, None)) == (None, None)


def test_what_another_attempt_reached_counts_for_nothing() -> None:
    second = attempt(2)
    assert account(second, Told(), progress=progress(1, 8)) == (None, None)
    assert account(second, Told(last_step=8), checkpoint=KNOWN) == (8, 8)


@pytest.mark.parametrize(
    ("last", "begun", "expected"),
    [
        (8, 6, (8, 2)),
        (8, 8, (8, 0)),
        (8, 9, (9, 0)),  # a checkpoint that it had no time to tell of
        (8, 4, (8, 4)),  # its checkpoint was damaged
        (8, None, (8, 8)),  # the next one began anew
        (None, 6, (6, 0)),
        (None, None, (None, 1)),
    ],
)
def test_where_the_next_attempt_begins_corrects_the_count(
    last: int | None, begun: int | None, expected: tuple[int | None, int]
) -> None:
    before = attempt(last_step=last, lost_steps=1)
    now = attempt(2, resumed_step=begun)
    after = corrected(before, now, Told(last_step=9))
    assert (after.last_step, after.lost_steps) == expected
    assert corrected(after, now, Told()) == after
    assert corrected(before, attempt(2), Told()) == before, "it has not begun"


def test_accounting_again_changes_nothing() -> None:
    said = Told(resolved(2), checkpoint_ref(6), 3, 8)
    status = FineTuneJobStatus(checkpoint=KNOWN)
    once = accounted(attempt(micro_batch_size=None), said, status)
    assert (once.micro_batch_size, once.resumed_step, once.lost_steps) == (2, 3, 2)
    assert accounted(once, said, status) == once
    assert accounted(once, Told(), status) == once
