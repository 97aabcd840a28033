"""Conditions obey kstatus, keep their times, and progress follows no faster than asked."""

from typing import Any

import pytest

from finetune_api.status import (
    AttemptState,
    Condition,
    ConditionType,
    FineTuneJobStatus,
    MemoryStatus,
    PlanStatus,
)
from finetune_contract.layout import Offload
from finetune_contract.progress import Phase, Progress
from finetune_contract.reasons import Reason
from finetune_contract.recipe import LoraTarget
from finetune_contract.resolved import RoleCoverage
from finetune_operator.job.errors import Stalled
from finetune_operator.judge.decision import Course, Decision, Verdict
from finetune_operator.judge.status import status_of, unjudged_status
from finetune_operator.observe.observed import Report
from finetune_operator.settings import Settings
from support.operator.values import (
    MEMORY,
    at,
    attempt,
    checkpoint_ref,
    job,
    resolved,
    seen,
    stamp,
)

SETTINGS = Settings(trainer_image="t", progress_seconds=30)
VERDICT = Verdict(Course.PROGRESSING, Reason.RUNNING, "why")


def made(
    course: Course = Course.PROGRESSING,
    reason: Reason = Reason.RUNNING,
    message: str = "why",
    old: FineTuneJobStatus | None = None,
    reports: tuple[Report, ...] = (),
    run: Any = None,
    seconds: float = 0,
) -> FineTuneJobStatus:
    decision = Decision((attempt(),), Verdict(course, reason, message), run=run)
    observed = seen(reports=reports)
    return status_of(job(status=old), observed, decision, at(seconds), SETTINGS)


def truths(status: FineTuneJobStatus) -> dict[str, str]:
    return {c.type: c.status for c in status.conditions or []}


@pytest.mark.parametrize(
    ("course", "expected"),
    [
        (
            Course.PROGRESSING,
            {"Ready": "Unknown", "Reconciling": "True", "Succeeded": "Unknown"},
        ),
        (Course.SUSPENDED, {"Ready": "Unknown", "Succeeded": "Unknown", "Suspended": "True"}),
        (Course.SUCCEEDED, {"Ready": "True", "Succeeded": "True"}),
        (Course.FAILED, {"Ready": "False", "Stalled": "True", "Succeeded": "False"}),
    ],
)
def test_each_course_has_its_conditions(course: Course, expected: dict[str, str]) -> None:
    status = made(course)
    assert truths(status) == expected
    assert {(c.reason, c.message) for c in status.conditions or []} == {("Running", "why")}
    assert status.observed_generation == 1
    assert all(c.observed_generation == 1 for c in status.conditions or [])


def test_a_transition_time_stays_while_the_truth_does() -> None:
    first = made(Course.PROGRESSING, seconds=0)
    second = made(Course.PROGRESSING, Reason.RETRYING, old=first, seconds=50)
    third = made(Course.SUCCEEDED, Reason.SUCCEEDED, old=second, seconds=90)
    times = [{c.last_transition_time for c in s.conditions or []} for s in (first, second, third)]
    assert times == [{stamp(0)}, {stamp(0)}, {stamp(90)}]


def test_a_conditions_message_is_one_line_that_the_api_takes() -> None:
    told = made(message="a\n\x1b[2J" + "b" * 9_000).conditions
    assert told is not None
    assert {c.message for c in told} == {("a \\x1b[2J" + "b" * 9_000)[:8191] + "…"}


def test_a_finished_job_keeps_its_conditions_and_speaks_of_the_newest_generation() -> None:
    done = made(Course.SUCCEEDED, Reason.SUCCEEDED, "published")
    older = done.model_copy(
        update={
            "conditions": [
                c.model_copy(update={"observed_generation": 0}) for c in done.conditions or []
            ]
        }
    )
    kept = made(Course.KEPT, Reason.SUCCEEDED, "", old=older, seconds=99)
    assert kept.conditions == done.conditions


def report(seconds: float, phase: Phase = Phase.TRAIN, number: int = 1, **of: Any) -> Report:
    return Report(number, at(seconds), Progress(phase=phase, **of))


def following(old: FineTuneJobStatus | None, new: Report, runs: bool = True) -> int | None:
    status = made(old=old, reports=(new,), run=attempt() if runs else None)
    return status.progress.done if status.progress else None


def test_progress_follows_at_most_once_per_interval() -> None:
    first = made(reports=(report(0, done=1),), run=attempt())
    assert first.progress is not None
    assert first.progress.done == 1
    assert following(first, report(29, done=2)) == 1
    assert following(first, report(30, done=2)) == 2


def test_a_report_that_is_older_than_status_says_is_followed() -> None:
    """The trainer's clock was put right, or status was edited: else progress stood until then."""
    first = made(reports=(report(9000, done=1),), run=attempt())
    assert following(first, report(29, done=2)) == 2


def test_a_new_phase_is_told_at_once() -> None:
    first = made(reports=(report(0, done=1),), run=attempt())
    assert following(first, report(1, Phase.PUBLISH, done=7)) == 7


def test_the_last_report_of_an_attempt_that_ended_is_told() -> None:
    first = made(reports=(report(0, done=1),), run=attempt())
    assert following(first, report(1, done=2), runs=False) == 2


def test_checkpoints_follow_at_the_pace_of_progress() -> None:
    first = made(reports=(report(0, checkpoint=checkpoint_ref(2)),), run=attempt())
    assert first.checkpoint is not None
    assert (first.checkpoint.step, first.checkpoint.attempt) == (2, 1)
    assert first.checkpoint.uri == checkpoint_ref(2).uri

    def saved(seconds: float, run: Any) -> int | None:
        next_report = report(seconds, checkpoint=checkpoint_ref(4))
        status = made(old=first, reports=(next_report,), run=run)
        return status.checkpoint and status.checkpoint.step

    assert saved(29, attempt()) == 2
    assert saved(30, attempt()) == 4
    assert saved(1, None) == 4, "the attempt has ended"


def test_the_plan_is_the_jobs_size_until_the_trainer_tells_it() -> None:
    plan = made().plan
    assert plan == PlanStatus(
        workers=2, processes=2, gpus=0, micro_batch_size=1, accumulation_steps=16
    )
    lora = (RoleCoverage(role=LoraTarget.MLP, found=3, adapted=2),)
    said = report(0, plan=resolved(8, lora=lora))
    told = made(reports=(said,), run=attempt()).plan
    assert told == PlanStatus(
        workers=2,
        processes=2,
        gpus=0,
        micro_batch_size=8,
        accumulation_steps=2,
        zero_stage=2,
        gradient_checkpointing=True,
        packing=True,
        memory=MemoryStatus(estimate=190, available=1_000, **MEMORY),
        lora=list(lora),
    )


@pytest.mark.parametrize(
    ("other", "kept"),
    [
        ({"micro_batch_size": None}, True),
        ({"micro_batch_size": 8}, True),
        ({"micro_batch_size": 8, "gradient_checkpointing": True}, True),
        ({"micro_batch_size": 4}, False),
        ({"micro_batch_size": 8, "offload": [Offload.OPTIMIZER]}, False),
    ],
)
def test_a_plan_stands_until_an_attempt_runs_otherwise(other: dict[str, Any], kept: bool) -> None:
    first = made(reports=(report(0, plan=resolved(8)),), run=attempt())
    decision = Decision((attempt(2, **other),), Verdict(Course.PROGRESSING, Reason.RUNNING))
    plan = status_of(job(status=first), seen(), decision, at(0), SETTINGS).plan
    assert plan is not None
    assert (plan == first.plan) is kept
    assert plan.micro_batch_size == (other["micro_batch_size"] or 8)
    assert plan.offload == other.get("offload")


def test_a_plan_that_no_trainer_told_follows_the_spec() -> None:
    size = PlanStatus(workers=9, processes=9, gpus=0, micro_batch_size=7)
    nothing = Decision((), Verdict(Course.SUSPENDED, Reason.SUSPENDED))
    status = FineTuneJobStatus(plan=size)
    plan = status_of(job(status=status), seen(), nothing, at(0), SETTINGS).plan
    assert plan == PlanStatus(workers=2, processes=2, gpus=0)


def test_progress_of_another_attempt_is_none_of_this_ones() -> None:
    assert following(None, report(0, number=2, done=5)) is None
    first = made(reports=(report(0, done=1),), run=attempt())
    assert first.progress is not None
    older = first.progress.model_copy(update={"attempt": 7})
    stale = first.model_copy(update={"progress": older})
    assert made(old=stale).progress is None


def test_the_first_report_of_the_next_attempt_is_followed_at_once() -> None:
    first = made(reports=(report(0, done=9),), run=attempt())
    next_one = attempt(2)
    decision = Decision((attempt(), next_one), VERDICT, run=next_one)
    observed = seen(reports=(report(1, number=2, done=1),))
    status = status_of(job(status=first), observed, decision, at(1), SETTINGS)
    assert status.progress is not None
    assert (status.progress.attempt, status.progress.done) == (2, 1)


def test_progress_stays_when_its_lease_is_gone() -> None:
    first = made(reports=(report(0, done=1),), run=attempt())
    assert made(old=first).progress == first.progress


def test_numbers_are_told_as_decimals() -> None:
    status = made(
        reports=(
            report(0, done=3, total=9, step=7, loss=0.123456, eval_loss=2, tokens_per_second=99.6),
        ),
        run=attempt(),
    )
    assert status.progress is not None
    assert (status.progress.loss, status.progress.eval_loss) == ("0.1235", "2.0000")
    assert status.progress.step == 7
    assert status.progress.tokens_per_second == "100"
    assert status.progress.summary == "Train 3/9"
    assert status.progress.last_report_time == stamp(0)


def test_an_invalid_spec_leaves_the_rest_of_the_status() -> None:
    old = made(reports=(report(0, done=1),), run=attempt())
    told = unjudged_status(
        old, Course.INVALID, Stalled(Reason.INVALID_SPEC, "spec.x: no"), 4, at(9)
    )
    assert truths(told) == {"Ready": "False", "Stalled": "True", "Succeeded": "Unknown"}
    assert told.observed_generation == 4
    assert told.attempts == old.attempts
    assert told.progress == old.progress
    message = next(c for c in told.conditions or [] if c.type == ConditionType.STALLED).message
    assert message.startswith("spec.x: no; correct the fields named")


def test_a_condition_of_another_truth_does_not_lend_its_time() -> None:
    old = Condition(
        type=ConditionType.READY,
        status="True",
        reason="Succeeded",
        last_transition_time=stamp(-99),
    )
    status = made(old=FineTuneJobStatus(conditions=[old]), seconds=5)
    assert (status.conditions or [])[0].last_transition_time == stamp(5)


def test_even_very_many_wrong_fields_fit_into_a_condition() -> None:
    told = unjudged_status(
        FineTuneJobStatus(),
        Course.INVALID,
        Stalled(Reason.INVALID_SPEC, "spec.x: no; " * 2000),
        1,
        at(0),
    )
    assert {len(c.message) <= 8192 for c in told.conditions or []} == {True}


@pytest.mark.parametrize(("phase", "run"), [(Phase.TRAIN, None), (Phase.PUBLISH, attempt())])
def test_progress_never_goes_back_within_an_attempt(phase: Phase, run: Any) -> None:
    old = made(reports=(Report(1, at(0), Progress(phase=Phase.TRAIN, done=9, step=9)),))
    back = made(old=old, reports=(Report(1, at(99), Progress(phase=phase, step=8)),), run=run)
    assert back.progress == old.progress
    on = made(old=old, reports=(Report(1, at(99), Progress(phase=phase, step=9)),), run=run)
    assert on.progress != old.progress


def test_of_very_many_attempts_the_newest_are_told_in_full() -> None:
    """A status that grew without a bound would one day be refused, and the job stand still."""
    ended = {"state": AttemptState.FAILED, "reason": Reason.POD_LOST, "message": "x" * 1024}
    attempts = tuple(attempt(n, **ended) for n in range(1, 1001))
    decision = Decision(attempts, Verdict(Course.PROGRESSING, Reason.RETRYING, ""))
    told = status_of(job(), seen(), decision, at(0), SETTINGS).attempts or []
    lengths = [len(a.message or "") for a in told]
    assert lengths == [100] * 980 + [1024] * 20
    assert [a.number for a in told] == [a.number for a in attempts]
    size = len(FineTuneJobStatus(attempts=told).model_dump_json(exclude_none=True))
    assert size < 512 * 1024
