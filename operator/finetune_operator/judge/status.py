"""(job, observed, decision, now) -> FineTuneJobStatus. Pure; written once per pass, if changed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal

from finetune_api.job import FineTuneJob
from finetune_api.status import (
    Attempt,
    Condition,
    ConditionType,
    FineTuneJobStatus,
    MemoryStatus,
    PlanStatus,
    ProgressStatus,
    RetryStatus,
)
from finetune_contract.foreign import printable
from finetune_contract.layout import Checkpointing, Offload
from finetune_contract.model import filled
from finetune_contract.resolved import Resolved
from finetune_operator.job.errors import Stalled, Waiting
from finetune_operator.job.footprint import Footprint
from finetune_operator.job.method import isolated_rewards
from finetune_operator.job.times import rfc3339, timestamp
from finetune_operator.job.workers import asks_for_gpus, processes
from finetune_operator.judge.decision import Course, Decision, Verdict
from finetune_operator.judge.told import checkpoint, told
from finetune_operator.judge.wording import bounded, with_advice
from finetune_operator.observe.observed import Observed, Report
from finetune_operator.settings import Settings

Truth = Literal["True", "False", "Unknown"]

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
    Course.INVALID: (
        (ConditionType.READY, "False"),
        (ConditionType.STALLED, "True"),
        (ConditionType.SUCCEEDED, "Unknown"),
    ),
}
_TOLD_IN_FULL = 20  # attempts; of all before, hundreds may be, the message is cut
_OLD_MESSAGE = 100  # characters
_LONGEST_MESSAGE = 8192  # characters of a condition's
_MANY_FIELDS = 8000  # leaves room for the advice in it


def status_of(
    job: FineTuneJob,
    observed: Observed,
    decision: Decision,
    now: datetime,
    settings: Settings,
) -> FineTuneJobStatus:
    """Return the whole status."""
    old = job.status or FineTuneJobStatus()
    last = decision.attempts[-1] if decision.attempts else None
    report = _report(old, observed, decision, settings)
    waits = decision.run.number if decision.run is not None and report is None else None
    tried = bool(isolated_rewards(job.spec))
    return FineTuneJobStatus(
        observed_generation=job.generation,
        conditions=_conditions(old, decision.verdict, job.generation, now),
        attempts=_shortened(decision.attempts) or None,
        retry=_retry(job, old, decision),
        reward_check=(decision.reward_check or old.reward_check) if tried else None,
        progress=_progress(old, last, report),
        checkpoint=checkpoint(job, old.checkpoint, observed, waits),
        artifact=decision.artifact,
        plan=_plan(job, old, last, observed),
    )


def _shortened(attempts: Sequence[Attempt]) -> list[Attempt]:
    """Return the attempts, of the older ones what is reckoned with and the beginning of why."""
    old, newest = attempts[:-_TOLD_IN_FULL], attempts[-_TOLD_IN_FULL:]
    cut = [
        a.model_copy(update={"message": a.message and bounded(a.message, _OLD_MESSAGE)})
        for a in old
    ]
    return [*cut, *newest]


def _retry(job: FineTuneJob, old: FineTuneJobStatus, decision: Decision) -> RetryStatus | None:
    """Return what `retries` a job that goes on follows: raised before its failure, it means
    nothing."""
    known, wanted = old.retry, job.spec.run_policy.retries
    if decision.retry or decision.verdict.course is Course.KEPT:
        return decision.retry or known
    if known is None:
        return RetryStatus(retries=wanted) if wanted else None
    return known.model_copy(update={"retries": wanted})


def unjudged_status(
    old: FineTuneJobStatus, course: Course, why: Stalled | Waiting, generation: int, now: datetime
) -> FineTuneJobStatus:
    """Return the status of a job that can not be judged; all else stays as it was."""
    message = with_advice(bounded(why.message, _MANY_FIELDS), why.reason)
    conditions = _conditions(old, Verdict(course, why.reason, message), generation, now)
    return old.model_copy(update={"observed_generation": generation, "conditions": conditions})


def _conditions(
    old: FineTuneJobStatus, verdict: Verdict, generation: int, now: datetime
) -> list[Condition]:
    """Return the conditions; the transition time of each stays while its truth does."""
    before = old.conditions or []
    if verdict.course is Course.KEPT:
        return [c.model_copy(update={"observed_generation": generation}) for c in before]
    since = {(c.type, c.status): c.last_transition_time for c in before}
    return [
        Condition(
            type=kind,
            status=truth,
            reason=verdict.reason,
            message=printable(verdict.message, _LONGEST_MESSAGE),
            observed_generation=generation,
            last_transition_time=since.get((kind, truth), rfc3339(now)),
        )
        for kind, truth in _SHAPES[verdict.course]
    ]


def _report(
    old: FineTuneJobStatus, observed: Observed, decision: Decision, settings: Settings
) -> Report | None:
    """Return the newest attempt's report, if it is time to follow it: the first, each new phase,
    then one per interval. Both times compared are the trainer's, so clocks need not agree."""
    last = decision.attempts[-1].number if decision.attempts else None
    report = next((r for r in observed.reports if r.attempt == last), None)
    known = old.progress
    if report is None or known is None or known.attempt != last:
        return report
    if (report.progress.step or 0) < (known.step or 0):
        return None  # an attempt never does fewer steps than it did
    if decision.run is None or known.phase != report.progress.phase:
        return report
    before = timestamp(known.last_report_time)
    interval = timedelta(seconds=settings.progress_seconds)
    if before is not None and timedelta() <= report.time - before < interval:
        return None
    return report


def _progress(
    old: FineTuneJobStatus, last: Attempt | None, report: Report | None
) -> ProgressStatus | None:
    if report is not None:
        return _progress_status(report)
    known = old.progress
    return known if known and last and known.attempt == last.number else None


def _progress_status(report: Report) -> ProgressStatus:
    return filled(
        ProgressStatus,
        report.progress,
        attempt=report.attempt,
        summary=report.progress.summary(),
        last_report_time=rfc3339(report.time),
    )


def _plan(
    job: FineTuneJob, old: FineTuneJobStatus, last: Attempt | None, observed: Observed
) -> PlanStatus:
    """Return the plan as the newest attempt's trainer told it. What an earlier one told stands
    until then, unless the new one is to run with another footprint."""
    said = told(job, observed, last.number).plan if last else None
    asked = Footprint.of(job, last) if last else Footprint.asked(job.spec)
    if said is not None:
        return told_plan(job, said, asked.offload)
    known, micro_batch = old.plan, asked.micro_batch_size
    if known and known.memory and _stands(known, asked):
        return known
    return PlanStatus(
        **_size(job),
        micro_batch_size=micro_batch,
        offload=list(asked.offload) or None,
        accumulation_steps=micro_batch
        and job.spec.training.global_batch_size // (micro_batch * processes(job)),
    )


def _stands(known: PlanStatus, asked: Footprint) -> bool:
    """Tell whether what a trainer told may be what one that is asked for this will tell."""
    always = asked.gradient_checkpointing is Checkpointing.ALWAYS
    return (
        asked.micro_batch_size in (None, known.micro_batch_size)
        and (known.gradient_checkpointing or not always)
        and (known.offload or []) == list(asked.offload)
    )


def told_plan(
    job: FineTuneJob, resolved: Resolved, offload: tuple[Offload, ...] = ()
) -> PlanStatus:
    """Return the plan with all that the trainer resolved."""
    memory = filled(MemoryStatus, resolved.memory, estimate=resolved.memory.total)
    return filled(PlanStatus, resolved, memory=memory, offload=list(offload), **_size(job))


def _size(job: FineTuneJob) -> dict[str, int]:
    count = processes(job)
    gpus = count if asks_for_gpus(job) else 0
    return {"workers": job.spec.workers.replicas, "processes": count, "gpus": gpus}
