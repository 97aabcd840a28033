"""(job, observed, decision, now) -> FineTuneJobStatus. Pure; written once per pass, if changed."""

from __future__ import annotations

from datetime import datetime, timedelta

from finetune_api.job import FineTuneJob
from finetune_api.status import (
    Condition,
    ConditionType,
    FineTuneJobStatus,
    ProgressStatus,
)
from finetune_operator.conditions import Truth, condition, rfc3339
from finetune_operator.decision import Course, Decision, Verdict
from finetune_operator.errors import Stalled, Waiting
from finetune_operator.observe import Observed, Report, timestamp
from finetune_operator.plan.attempt import plan_status
from finetune_operator.plan.run_config import micro_batch_size
from finetune_operator.settings import Settings
from finetune_operator.wording import bounded, with_advice

_SHAPES: dict[Course, tuple[tuple[ConditionType, Truth], ...]] = {
    Course.PROGRESSING: (
        (ConditionType.READY, "Unknown"),
        (ConditionType.RECONCILING, "True"),
        (ConditionType.SUCCEEDED, "Unknown"),
    ),
    Course.SUSPENDED: (
        (ConditionType.READY, "Unknown"),
        (ConditionType.SUCCEEDED, "Unknown"),
        (ConditionType.SUSPENDED, "True"),
    ),
    Course.SUCCEEDED: ((ConditionType.READY, "True"), (ConditionType.SUCCEEDED, "True")),
    Course.FAILED: (
        (ConditionType.READY, "False"),
        (ConditionType.STALLED, "True"),
        (ConditionType.SUCCEEDED, "False"),
    ),
}
_MANY_FIELDS = 8000  # leaves room for the advice in a condition's message
_INVALID: tuple[tuple[ConditionType, Truth], ...] = (
    (ConditionType.READY, "False"),
    (ConditionType.STALLED, "True"),
    (ConditionType.SUCCEEDED, "Unknown"),
)


def status_of(
    job: FineTuneJob,
    observed: Observed,
    decision: Decision,
    now: datetime,
    settings: Settings,
    waiting: Waiting | None = None,
) -> FineTuneJobStatus:
    """Return the whole status. `waiting` is what stood in the way of the decision, if anything."""
    old = job.status or FineTuneJobStatus()
    verdict = decision.verdict
    if waiting is not None:
        text = bounded(with_advice(waiting.message, waiting.reason))
        verdict = Verdict(Course.PROGRESSING, waiting.reason, text)
    attempts = list(decision.attempts) or None
    micro_batch = attempts[-1].micro_batch_size if attempts else None
    return FineTuneJobStatus(
        observed_generation=job.generation,
        conditions=_conditions(old, verdict, job.generation, now),
        attempts=attempts,
        progress=_progress(old, observed, decision, settings),
        artifact=decision.artifact,
        plan=plan_status(job, micro_batch or micro_batch_size(job.spec)),
    )


def invalid_status(
    old: FineTuneJobStatus, stalled: Stalled, generation: int, now: datetime
) -> FineTuneJobStatus:
    """Return the status of a job whose spec can not be read; all else stays as it was."""
    message = with_advice(bounded(stalled.message, _MANY_FIELDS), stalled.reason)
    conditions = [
        condition(old.conditions or (), kind, truth, stalled.reason, message, generation, now)
        for kind, truth in _INVALID
    ]
    return old.model_copy(update={"observed_generation": generation, "conditions": conditions})


def _conditions(
    old: FineTuneJobStatus, verdict: Verdict, generation: int, now: datetime
) -> list[Condition]:
    before = old.conditions or []
    if verdict.course is Course.KEPT:
        return [c.model_copy(update={"observed_generation": generation}) for c in before]
    return [
        condition(before, kind, truth, verdict.reason, verdict.message, generation, now)
        for kind, truth in _SHAPES[verdict.course]
    ]


def _progress(
    old: FineTuneJobStatus, observed: Observed, decision: Decision, settings: Settings
) -> ProgressStatus | None:
    """Follow the newest attempt's reports: the first, each new phase, then one per interval.

    Both times compared are the trainer's, so clocks need not agree.
    """
    last = decision.attempts[-1].number if decision.attempts else None
    known = old.progress if old.progress and old.progress.attempt == last else None
    report = next((r for r in observed.reports if r.attempt == last), None)
    if report is None:
        return known
    if known is not None and known.phase == report.progress.phase:
        told = timestamp(known.last_report_time)
        interval = timedelta(seconds=settings.progress_seconds)
        if decision.run is not None and told is not None and report.time - told < interval:
            return known
    return _progress_status(report)


def _progress_status(report: Report) -> ProgressStatus:
    progress = report.progress
    return ProgressStatus(
        attempt=report.attempt,
        phase=progress.phase,
        summary=progress.summary(),
        done=progress.done,
        total=progress.total,
        loss=_decimal(progress.loss, 4),
        tokens_per_second=_decimal(progress.tokens_per_second, 0),
        eta_seconds=progress.eta_seconds,
        last_report_time=rfc3339(report.time),
    )


def _decimal(value: float | None, digits: int) -> str | None:
    return None if value is None else f"{value:.{digits}f}"
