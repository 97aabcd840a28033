"""Why an attempt ended, from what its pods and their workload say.

Pure. What follows from a reason is not decided here but stands in `finetune_contract.reasons`.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from finetune_api.job import FineTuneJob
from finetune_api.status import Attempt
from finetune_contract.reasons import TABLE, Reason, Retry, reason_of_exit_code
from finetune_contract.result import Outcome, PublishedArtifact
from finetune_operator.job.credentials import with_secrets_named
from finetune_operator.job.names import attempt_name
from finetune_operator.judge.blocked import block_of
from finetune_operator.judge.pod_end import SYMPTOMS, End, failing_since, pod_end, result_of
from finetune_operator.judge.told import told
from finetune_operator.observe.observed import Child, Crashes, Observed, Pod

# One failing pod takes its peers down. What the peers say is a symptom, so the others get this long
# to tell the cause.
SETTLE = timedelta(seconds=10)
# Kubelets start a container that ended at once, then after 10 and 20 seconds.
CRASHES = 3
MORE_MEMORY = "raise python.memory of the rewards, or let them take less"
_NO_END = {Retry.WAIT, Retry.NONE}


def published(job: FineTuneJob, attempt: Attempt, pods: list[Pod]) -> PublishedArtifact | None:
    """Return the artifact that rank 0's pod read back and reported for this attempt."""
    for pod in pods:
        result = result_of(pod, attempt.number)
        if pod.node_rank == 0 and result is not None and result.outcome is Outcome.SUCCEEDED:
            artifact = result.artifact
            below = job.spec.output.uri.rstrip("/") + "/"
            if artifact is not None and artifact.uri.startswith(below):
                return artifact
    return None


def end_of(
    job: FineTuneJob, attempt: Attempt, observed: Observed, now: datetime, workload: str
) -> End | None:
    """Return how the attempt ended without success; None if it goes on. `workload` is the kind of
    what makes its pods."""
    pods, maker = observed.pods_of(attempt.number), observed.workload(job.uid, attempt.number)
    end = (
        _failed_pods(job, attempt, observed, now)
        or _crashing_runner(job, attempt, observed, pods)
        or _lost_workload(job, attempt, observed, pods, workload)
        or _lost_pods(attempt, pods)
        or _ended_workload(maker)
    )
    if end is None or maker is None or maker.held is None or end.reason is not Reason.POD_LOST:
        return end
    text = f"{end.message}: {maker.kind} {maker.name} {maker.held}"
    return replace(end, reason=Reason.PREEMPTED, message=text)


def _failed_pods(
    job: FineTuneJob, attempt: Attempt, observed: Observed, now: datetime
) -> End | None:
    pods = observed.pods_of(attempt.number)
    ends = [(pod, end) for pod in pods if (end := pod_end(pod, attempt.number)) is not None]
    if not ends:
        return None
    pod, end = min(ends, key=lambda pair: _nearness(*pair))
    running = any(not p.over for p in pods)
    # A node's clock may be off: an end far in the past or in the future is not waited for.
    recent = abs(now - failing_since(pod)) < SETTLE
    settled = end.reason not in SYMPTOMS or not pod.over or not running or not recent
    if end.reason is Reason.DISTRIBUTED_FAILURE and attempt.running_time is None:
        end = _gave_up(job, end, pods, observed, now)
    return End(end.reason, with_secrets_named(job, end.message), end.rank, settled)


def _gave_up(job: FineTuneJob, end: End, pods: list[Pod], observed: Observed, now: datetime) -> End:
    """Return the end of a pod that waited in vain for a peer: what kept that one from starting."""
    not_ended = [p for p in pods if p.end is None]
    blocks = [b for p in not_ended if (b := block_of(job, p, observed, now)) is not None]
    if not blocks:
        return end
    return End(blocks[0].reason, f"{blocks[0].message}; meanwhile {end.message}", end.rank)


def _nearness(pod: Pod, end: End) -> tuple[bool, datetime, int]:
    """Order ends by how likely they are the cause: no symptom, the earliest second, its kind."""
    symptom = end.reason in SYMPTOMS
    kind = SYMPTOMS.index(end.reason) if symptom else 0
    return symptom, failing_since(pod), kind


def _crashing_runner(
    job: FineTuneJob, attempt: Attempt, observed: Observed, pods: list[Pod]
) -> End | None:
    """Return the end of an attempt whose reward runner crashes over and over before any step.

    Its pod may never start the trainer, which later on waits for the runner and tells of it.
    """
    said = told(job, observed, attempt.number)
    if (said.last_step or 0) > (said.resumed_step or 0):
        return None
    for pod in pods:
        crashes = pod.runner_crashes
        if not pod.over and crashes is not None and crashes.restarts >= CRASHES:
            return _crash(pod.name, crashes)
    return None


def _crash(pod: str, crashes: Crashes) -> End:
    text = f"the reward runner of {pod} ended {crashes.restarts + 1} times before the first step"
    if crashes.reason == "OOMKilled":
        return End(Reason.REWARD_INVALID, f"{text}, killed at its memory limit: {MORE_MEMORY}")
    reason = reason_of_exit_code(crashes.exit_code)
    if reason is None or TABLE[reason].retry in _NO_END:
        reason = Reason.TRAINER_ERROR
    words = f": {crashes.words}" if crashes.words else ""
    return End(reason, f"{text}, with code {crashes.exit_code}{words}")


def _lost_workload(
    job: FineTuneJob, attempt: Attempt, observed: Observed, pods: list[Pod], kind: str
) -> End | None:
    """It was made if its uid stands in status, or if a pod of it was seen."""
    workload = observed.workload(job.uid, attempt.number)
    what = f"{kind} {attempt_name(job.name, attempt.number)}"
    if workload is None:
        if attempt.workload_uid is None and not pods:
            return None
        return End(Reason.POD_LOST, f"{what} was deleted", absent=True)
    if workload.deleting or attempt.workload_uid not in (None, workload.uid):
        return End(Reason.POD_LOST, f"{what} was deleted or replaced", absent=True)
    return None


def _lost_pods(attempt: Attempt, pods: list[Pod]) -> End | None:
    """A pod that ended well may go; any other that goes, or comes, makes it another run."""
    if attempt.pod_uids is None:
        return None
    recorded = set(attempt.pod_uids)
    present = {p.uid for p in pods if not p.gone or (p.end and p.end.exit_code == 0)}
    names = {p.uid: p.name for p in pods}
    for uid in sorted(present - recorded):
        return End(Reason.POD_LOST, f"{names[uid]} was replaced", absent=True)
    for uid in sorted(recorded - present):
        lost = f"{names[uid]} was deleted" if uid in names else f"pod {uid} vanished"
        return End(Reason.POD_LOST, lost, absent=True)
    return None


def _ended_workload(workload: Child | None) -> End | None:
    if workload is None or workload.outcome is None:
        return None
    word = "succeeded" if workload.outcome else "failed"
    text = f"{workload.kind} {workload.name} {word}, but no pod tells how"
    return End(Reason.RESULT_LOST, text, absent=True)
