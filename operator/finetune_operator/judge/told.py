"""What an attempt's trainer told, by the Progress in its Lease and by its pods' Results. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from finetune_api.job import FineTuneJob
from finetune_api.status import Attempt, FineTuneJobStatus
from finetune_contract.checkpoint import CheckpointRef
from finetune_contract.reasons import Reason
from finetune_contract.resolved import Resolved
from finetune_contract.result import Outcome, Result
from finetune_operator.observe.observed import Observed


@dataclass(frozen=True)
class Told:
    """All that is known of one attempt's course; None where nothing tells."""

    plan: Resolved | None = None
    checkpoint: CheckpointRef | None = None  # the newest complete one that it knows
    resumed_step: int | None = None
    last_step: int | None = None


def told(job: FineTuneJob, observed: Observed, attempt: int) -> Told:
    """Return what the attempt's Lease and pods say. A Result is later than any Progress."""
    progress = next((r.progress for r in observed.reports if r.attempt == attempt), None)
    results = _results(observed, attempt)
    checkpoints = [r.checkpoint for r in results] + [progress.checkpoint if progress else None]
    plans = [r.plan for r in results] + [progress.plan if progress else None]
    own = _newest(job, checkpoints)
    steps = [_steps_done(r) for r in results]
    steps += [progress.step, progress.resumed_step] if progress else []
    steps += [own.step] if own else []
    return Told(
        plan=next((plan for plan in plans if plan is not None), None),
        checkpoint=own,
        resumed_step=progress.resumed_step if progress else None,
        last_step=max((step for step in steps if step is not None), default=None),
    )


def checkpoint(
    job: FineTuneJob, known: CheckpointRef | None, observed: Observed, following: int | None
) -> CheckpointRef | None:
    """Return the newest complete checkpoint that any attempt told of; it never goes back.

    The Progress of attempt `following` is left out: it is followed at its own pace.
    """
    refs = [r.progress.checkpoint for r in observed.reports if r.attempt != following]
    refs += [p.end.result.checkpoint for p in observed.pods if p.end and p.end.result]
    newest = _newest(job, refs)
    if newest is None or (known is not None and newest.step <= known.step):
        return known
    return newest


def learned(attempt: Attempt, said: Told) -> Attempt:
    """Return the record with what the trainer chose and where it began, kept once told."""
    return attempt.model_copy(
        update={
            "micro_batch_size": attempt.micro_batch_size
            or (said.plan and said.plan.micro_batch_size),
            "gradient_checkpointing": (said.plan and said.plan.gradient_checkpointing)
            if attempt.gradient_checkpointing is None
            else attempt.gradient_checkpointing,
            "resumed_step": said.resumed_step
            if attempt.resumed_step is None
            else attempt.resumed_step,
        }
    )


def accounted(attempt: Attempt, said: Told, status: FineTuneJobStatus) -> Attempt:
    """Return the record of an attempt that ended, with the steps it did and those it lost.

    Lost is what it did after the newest complete checkpoint it knew of. Words that come late make
    the record better; a Lease that is gone takes nothing back.
    """
    attempt = learned(attempt, said)
    before, saved = status.progress, status.checkpoint
    steps = [attempt.last_step, said.last_step]
    if before is not None and before.attempt == attempt.number:
        steps.append(before.step)
    last = max((step for step in steps if step is not None), default=None)
    safe = [attempt.resumed_step or 0, said.checkpoint.step if said.checkpoint else 0]
    if saved is not None and saved.attempt == attempt.number:
        safe.append(saved.step)
    lost = None if last is None else max(0, last - max(safe))
    return attempt.model_copy(update={"last_step": last, "lost_steps": lost})


def corrected(before: Attempt, now: Attempt, said: Told) -> Attempt:
    """Return the record of the attempt before, by where this one began: steps that were done, or a
    checkpoint that was made, after the last report; and a checkpoint that turned out damaged."""
    begun = now.resumed_step
    if begun is None and said.last_step is not None:
        begun = 0
    if begun is None or (before.last_step is None and begun == 0):
        return before
    last = max(before.last_step or 0, begun)
    return before.model_copy(update={"last_step": last, "lost_steps": last - begun})


def _results(observed: Observed, attempt: int) -> list[Result]:
    ends = [pod.end.result for pod in observed.pods_of(attempt) if pod.end]
    return [result for result in ends if result is not None and result.attempt == attempt]


def _steps_done(result: Result) -> int | None:
    """A failure names the step under way; a stop and a success name the steps done."""
    if result.step is None:
        return None
    if result.outcome is Outcome.SUCCEEDED or result.reason is Reason.INTERRUPTED:
        return result.step
    return max(0, result.step - 1)


def _newest(job: FineTuneJob, refs: Iterable[CheckpointRef | None]) -> CheckpointRef | None:
    """Return the checkpoint with the most steps; only what lies in the job's output counts."""
    below = job.spec.output.uri.rstrip("/") + "/"
    own = [ref for ref in refs if ref is not None and ref.uri.startswith(below)]
    return max(own, key=lambda ref: (ref.step, ref.attempt), default=None)
