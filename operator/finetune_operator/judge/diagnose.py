"""Why an attempt ended, or what keeps its pods from starting, from what the pods say.

Pure. What follows from a reason is not decided here but stands in `finetune_contract.reasons`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from finetune_api.job import FineTuneJob
from finetune_api.status import Attempt
from finetune_contract.reasons import TABLE, Reason, Retry, reason_of_exit_code
from finetune_contract.result import Outcome, PublishedArtifact, Result
from finetune_operator.job.credentials import credentials
from finetune_operator.job.method import python_rewards
from finetune_operator.job.names import attempt_name
from finetune_operator.judge.observed import Child, ContainerEnd, Crashes, Observed, Pod
from finetune_operator.judge.told import told

# One failing pod takes its peers down. What the peers say is a symptom, so the others get this long
# to tell the cause.
SETTLE = timedelta(seconds=10)
# A node that does not answer never confirms that a deleted pod has gone.
OVERDUE = timedelta(seconds=30)
# The nearest to the cause first: a pod that was killed comes before one that was told to stop.
_SYMPTOMS = (
    Reason.RESULT_LOST,
    Reason.POD_LOST,
    Reason.INTERRUPTED,
    Reason.DISTRIBUTED_FAILURE,
)
# Kubelets start a container that ended at once, then after 10 and 20 seconds.
CRASHES = 3
MORE_MEMORY = "raise python.memory of the rewards, or let them take less"
_NO_END = {Retry.WAIT, Retry.NONE}
_SIGTERM_EXIT = 143
_CLUSTER_ENDS = {
    "Evicted",
    "NodeAffinity",
    "NodeLost",
    "NodeShutdown",
    "Preempting",
    "Shutdown",
    "Terminated",
    "UnexpectedAdmissionError",
}
_IMAGE_REASONS = {
    "ErrImagePull",
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "InvalidImageName",
    "ImageInspectError",
    "RegistryUnavailable",
}
_CONTAINER_REASONS = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
# A pod over a limit of its own is called evicted as well, but no other node would change that.
_OVER_ITS_STORAGE = re.compile(
    r"ephemeral local storage usage exceeds"
    r"|exceeded its local ephemeral storage limit"
    r"|EmptyDir volume .+ exceeds the limit"
)
_NOT_FOUND = re.compile(r'(secret|configmap|persistentvolumeclaim) "([^"]+)" not found', re.I)


@dataclass(frozen=True)
class End:
    """How an attempt ended. `settled` is false while other pods may still tell a better cause;
    `absent` is true if it rests on something not being there, which a lagging cache also shows."""

    reason: Reason
    message: str
    rank: int | None = None
    settled: bool = True
    absent: bool = False


@dataclass(frozen=True)
class Blocked:
    """What a pod waits for; `since` is when it was given a node."""

    reason: Reason
    message: str
    since: datetime | None


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
    pods = observed.pods_of(attempt.number)
    return (
        _failed_pods(attempt, pods, now)
        or _crashing_runner(job, attempt, observed, pods)
        or _lost_workload(job, attempt, observed, pods, workload)
        or _lost_pods(attempt, pods)
        or _ended_workload(observed.workload(job.uid, attempt.number))
    )


def blocked(job: FineTuneJob, pods: list[Pod], observed: Observed) -> Blocked | None:
    """Return what keeps the first of the pods that have not started from doing so."""
    found = (_blocked(job, p, observed) for p in pods if not p.running and not p.finished)
    return next((b for b in found if b is not None), None)


def result_of(pod: Pod, attempt: int) -> Result | None:
    result = pod.end.result if pod.end else None
    return result if result is not None and result.attempt == attempt else None


def _failed_pods(attempt: Attempt, pods: list[Pod], now: datetime) -> End | None:
    ends = [(pod, end) for pod in pods if (end := pod_end(pod, attempt.number, now)) is not None]
    if not ends:
        return None
    pod, end = min(ends, key=lambda pair: _nearness(*pair))
    running = any(not p.finished for p in pods)
    # A node's clock may be off: an end far in the past or in the future is not waited for.
    recent = abs(now - _finished_at(pod)) < SETTLE
    settled = end.reason not in _SYMPTOMS or not running or not recent
    return End(end.reason, end.message, end.rank, settled)


def _nearness(pod: Pod, end: End) -> tuple[bool, datetime, int]:
    """Order ends by how likely they are the cause: no symptom, the earliest second, its kind."""
    symptom = end.reason in _SYMPTOMS
    kind = _SYMPTOMS.index(end.reason) if symptom else 0
    return symptom, _finished_at(pod), kind


def _finished_at(pod: Pod) -> datetime:
    return (pod.end and pod.end.finished) or datetime.min.replace(tzinfo=UTC)


def pod_end(pod: Pod, attempt: int, now: datetime) -> End | None:
    """Return how a pod failed; None while it has not ended, or if it ended well."""
    if not pod.finished:
        if pod.due is None or now < pod.due + OVERDUE:
            return None
        why = f": {pod.disrupted}" if pod.disrupted else ""
        return End(
            Reason.POD_LOST, f"{pod.name} was deleted, but its node does not confirm it{why}"
        )
    if pod.end is not None and pod.end.exit_code == 0 and pod.node_rank != 0:
        return None
    if pod.disrupted or pod.reason in _CLUSTER_ENDS:
        why = (pod.disrupted or pod.message or pod.reason).strip()
        full = _OVER_ITS_STORAGE.search(why)
        return End(Reason.DISK_FULL if full else Reason.EVICTED, f"{pod.name}: {why}")
    if pod.end is not None:
        return _container_end(pod, pod.end, attempt)
    if pod.phase == "Failed":
        if pod.init_failure:
            return End(Reason.DISTRIBUTED_FAILURE, f"{pod.name}: {pod.init_failure}")
        why = pod.message or pod.reason or "it never ran"
        return End(Reason.EVICTED, f"{pod.name} was refused by its node: {why}")
    return None


def _container_end(pod: Pod, end: ContainerEnd, attempt: int) -> End | None:
    result = result_of(pod, attempt)
    if end.reason == "OOMKilled":
        return End(Reason.OUT_OF_MEMORY, f"{pod.name} was killed at its memory limit")
    if result is not None and result.outcome is Outcome.FAILED:
        reason = result.reason
        if TABLE[reason].retry in _NO_END:  # no way to end: the image is not ours
            reason = Reason.TRAINER_ERROR
        where = f" (at {result.frames[-1]})" if result.frames else ""
        return End(reason, f"{pod.name}: {result.message}{where}", result.rank)
    if end.exit_code == 0:
        text = "ended without reporting an artifact of this attempt"
        return End(Reason.RESULT_LOST, f"{pod.name} {text}")
    text = f"{pod.name} ended with code {end.exit_code} and no result"
    reason_of_code = reason_of_exit_code(end.exit_code)
    if reason_of_code is not None and reason_of_code is not Reason.SUCCEEDED:
        return End(reason_of_code, text)
    return End(Reason.INTERRUPTED if end.exit_code == _SIGTERM_EXIT else Reason.RESULT_LOST, text)


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
        waits = pod.end is None and not pod.finished
        if waits and crashes is not None and crashes.restarts >= CRASHES:
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
        return End(Reason.POD_LOST, f"{names.get(uid, f'pod {uid}')} vanished", absent=True)
    return None


def _ended_workload(workload: Child | None) -> End | None:
    if workload is None or workload.outcome is None:
        return None
    word = "succeeded" if workload.outcome else "failed"
    text = f"{workload.kind} {workload.name} {word}, but no pod tells how"
    return End(Reason.RESULT_LOST, text, absent=True)


def _blocked(job: FineTuneJob, pod: Pod, observed: Observed) -> Blocked | None:
    obstacle = pod.obstacle
    reason = obstacle.reason if obstacle else ""
    message = " ".join(
        text for text in (obstacle and obstacle.message, observed.warnings.get(pod.uid)) if text
    )
    if match := _NOT_FOUND.search(message):
        kind, name = match[1].lower(), match[2]
        return _missing(job, pod, kind, name)
    if reason in ("Unschedulable", "SchedulingGated"):
        return Blocked(Reason.UNSCHEDULABLE, f"{pod.name}: {message}", None)
    if reason in _IMAGE_REASONS:
        return Blocked(Reason.IMAGE_UNAVAILABLE, f"{pod.name}: {message}", pod.scheduled)
    if "MountVolume" in message or "AttachVolume" in message:
        return Blocked(Reason.VOLUME_UNAVAILABLE, f"{pod.name}: {message}", pod.scheduled)
    if reason in _CONTAINER_REASONS or "create pod sandbox" in message:
        return Blocked(Reason.CONTAINER_REFUSED, f"{pod.name}: {message}", pod.scheduled)
    return None


def _missing(job: FineTuneJob, pod: Pod, kind: str, name: str) -> Blocked:
    title = {"secret": "Secret", "configmap": "ConfigMap"}.get(kind, "PersistentVolumeClaim")
    secrets = [of.field for of in credentials(job).values() if of.secret == name]
    users = {"secret": secrets, "configmap": _code_in(job, name)}.get(kind)
    named = f", named by {' and '.join(users)}," if users else ""
    text = f'{title} "{name}"{named} does not exist in namespace {job.namespace}'
    reason = Reason.SECRET_NOT_FOUND if kind == "secret" else Reason.VOLUME_UNAVAILABLE
    return Blocked(reason, text, pod.scheduled)


def _code_in(job: FineTuneJob, config_map: str) -> list[str]:
    """Return the fields that name a ConfigMap for a reward's code."""
    rewards = python_rewards(job.spec).items()
    return [
        f"spec.method.grpo.rewards[{name}].python.configMap"
        for name, source in rewards
        if source.config_map.name == config_map
    ]
