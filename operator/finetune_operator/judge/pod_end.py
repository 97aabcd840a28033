"""How one pod ended, or why it is being taken away. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from finetune_contract.reasons import TABLE, Reason, Retry, reason_of_exit_code
from finetune_contract.result import Outcome, Result
from finetune_operator.observe.observed import ContainerEnd, InitFailure, Pod

# The nearest to the cause first: a pod that was killed comes before one that was told to stop. The
# pods that a failure leaves are deleted, often within the second that timestamps tell.
SYMPTOMS = (
    Reason.RESULT_LOST,
    Reason.INTERRUPTED,
    Reason.DISTRIBUTED_FAILURE,
    Reason.POD_LOST,
)
_NO_END = {Retry.WAIT, Retry.NONE}
_NEVER_MADE = {"StartError", "ContainerCannotRun"}
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
# By a pod's DisruptionTarget, or its own reason; all else is an eviction.
_DISRUPTIONS = {
    "DeletionByPodGC": Reason.NODE_LOST,
    "DeletionByTaintManager": Reason.NODE_LOST,
    "NodeLost": Reason.NODE_LOST,
    "Preempting": Reason.PREEMPTED,
    "PreemptionByScheduler": Reason.PREEMPTED,
}
# A pod over a limit of its own is called evicted as well, but no other node would change that.
_OVER_ITS_STORAGE = re.compile(
    r"ephemeral local storage usage exceeds"
    r"|exceeded its local ephemeral storage limit"
    r"|EmptyDir volume .+ exceeds the limit"
)


@dataclass(frozen=True)
class End:
    """How an attempt ended. `settled` is false while other pods may still tell a better cause;
    `absent` is true if it rests on something not being there, which a lagging cache also shows."""

    reason: Reason
    message: str
    rank: int | None = None
    settled: bool = True
    absent: bool = False


def pod_end(pod: Pod, attempt: int) -> End | None:
    """Return how a pod failed, or why it is going to; None while it runs, or if it ended well."""
    if pod.end is not None and pod.end.exit_code == 0 and pod.node_rank != 0:
        return None
    if not pod.over:
        return _going(pod)
    if pod.disrupted or pod.reason in _CLUSTER_ENDS:
        return _taken_away(pod)
    if pod.end is not None:
        return _deletion(pod, _container_end(pod, pod.end, attempt))
    if pod.phase == "Failed":
        if pod.init_failure is not None:
            return _failed_to_start(pod, pod.init_failure)
        why = pod.message or pod.reason or "it never ran"
        return End(Reason.EVICTED, f"{pod.name} was refused by its node: {why}")
    return None


def _failed_to_start(pod: Pod, failed: InitFailure) -> End:
    text = f"{pod.name}: init container {failed.name} ended with code {failed.exit_code}"
    return End(Reason.DISTRIBUTED_FAILURE if failed.waited else Reason.INIT_FAILED, text)


def failing_since(pod: Pod) -> datetime:
    """Return when a pod that failed began to: at its deletion, or when its trainer ended."""
    times = [time for time in (pod.deleted, _ended(pod)) if time is not None]
    return min(times, default=datetime.min.replace(tzinfo=UTC))


def _ended(pod: Pod) -> datetime | None:
    return pod.end.finished if pod.end else None


def _going(pod: Pod) -> End | None:
    """Return why a pod goes. Whoever deletes one says so first, and no kubelet starts it then or
    lets it run on: a controller may count it as failed at once."""
    if pod.due is None:
        return None
    if pod.disrupted or pod.reason in _CLUSTER_ENDS:
        return _taken_away(pod)
    return _deleted(pod)


def _taken_away(pod: Pod) -> End:
    why = (pod.disrupted or pod.message or pod.reason).strip()
    reason = _DISRUPTIONS.get(pod.disruption) or _DISRUPTIONS.get(pod.reason, Reason.EVICTED)
    full = _OVER_ITS_STORAGE.search(why)
    return End(Reason.DISK_FULL if full else reason, f"{pod.name}: {why}")


def _deletion(pod: Pod, end: End | None) -> End | None:
    """Return the deletion of a pod, where how it ended is what follows from that."""
    if end is None or end.reason not in SYMPTOMS or pod.deleted is None:
        return end
    ended = _ended(pod)
    return _deleted(pod) if ended is None or pod.deleted <= ended else end


def _deleted(pod: Pod) -> End:
    return End(Reason.POD_LOST, f"{pod.name} was deleted")


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
    if end.reason in _NEVER_MADE:
        return End(Reason.CONTAINER_REFUSED, f"{pod.name}: {end.words or end.reason}")
    if end.exit_code == 0:
        text = "ended without reporting an artifact of this attempt"
        return End(Reason.RESULT_LOST, f"{pod.name} {text}")
    text = f"{pod.name} ended with code {end.exit_code} and no result"
    reason_of_code = reason_of_exit_code(end.exit_code)
    if reason_of_code is not None and reason_of_code is not Reason.SUCCEEDED:
        return End(reason_of_code, text)
    return End(Reason.INTERRUPTED if end.exit_code == _SIGTERM_EXIT else Reason.RESULT_LOST, text)


def result_of(pod: Pod, attempt: int) -> Result | None:
    result = pod.end.result if pod.end else None
    return result if result is not None and result.attempt == attempt else None
