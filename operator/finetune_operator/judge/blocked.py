"""What keeps an attempt's pods from starting, from what the cluster says of them. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from finetune_api.job import FineTuneJob
from finetune_api.status import Attempt
from finetune_contract.reasons import Reason
from finetune_operator.job.credentials import credentials
from finetune_operator.job.method import python_rewards
from finetune_operator.job.times import timestamp
from finetune_operator.observe.observed import Observed, Obstacle, Pod

# What nobody knows to pass by itself is shown after this long; then it counts like all else.
SLOW = timedelta(seconds=30)
# From the time a pod has a node: runtimes give up a pull that does not get on, and a large image
# takes its time.
LONGEST_PULL = timedelta(hours=1)
_PULLING = "Pulling"
_IMAGE_REASONS = {
    "ErrImagePull",
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "InvalidImageName",
    "ImageInspectError",
    "RegistryUnavailable",
}
_CONTAINER_REASONS = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
_CREATING = "ContainerCreating"
_VOLUME = re.compile(r"MountVolume|AttachVolume|Multi-Attach|attach or mount volumes")
_NOT_FOUND = re.compile(r'(secret|configmap|persistentvolumeclaim) "([^"]+)" not found', re.I)


@dataclass(frozen=True)
class Blocked:
    """What an attempt's start waits for. `since` is when it began to; None if it may wait as long
    as it likes."""

    reason: Reason
    message: str
    since: datetime | None


def blocked(job: FineTuneJob, pods: list[Pod], observed: Observed, now: datetime) -> Blocked | None:
    """Return what keeps the first of the pods that have not started from doing so. They wait for
    rank 0, whose name no DNS knows until all else in its pod is ready too."""
    waiting = [p for p in pods if not p.running and not p.over]
    if waiting:
        waiting += [p for p in pods if p.running and p.node_rank == 0]
    found = [b for p in waiting if (b := block_of(job, p, observed, now)) is not None]
    return min(found, key=lambda b: b.reason is Reason.PENDING, default=None)  # what takes its time


def unmade(
    job: FineTuneJob, attempt: Attempt, pods: list[Pod], observed: Observed, now: datetime
) -> Blocked | None:
    """Return what keeps the workload from making all its pods, while some were never there, or what
    they need to find each other, while some do not run."""
    workload, wanted = observed.workload(job.uid, attempt.number), job.spec.workers.replicas
    complete = attempt.pod_uids is not None or len(pods) >= wanted
    if workload is None or (complete and all(p.running or p.over for p in pods)):
        return None
    what = f"{workload.kind} {workload.name}"
    if workload.held is not None and not complete:
        return Blocked(Reason.QUEUED, f"{what} {workload.held}", None)
    begun, has = timestamp(attempt.start_time), f"{what} has {len(pods)} of {wanted} pods"
    if warning := observed.warnings.get(workload.uid):
        return Blocked(Reason.POD_REFUSED, f"{has}: {warning}", begun)
    if complete:
        return None
    slow = begun is not None and now - begun >= SLOW
    return Blocked(Reason.NOT_STARTING, has, begun) if observed.looked and slow else None


def block_of(job: FineTuneJob, pod: Pod, observed: Observed, now: datetime) -> Blocked | None:
    """Return what keeps a pod from starting; None for one that is merely slow."""
    obstacle, warning = _lasting(pod.obstacle, now), observed.warnings.get(pod.uid)
    reason = obstacle.reason if obstacle else ""
    message = " ".join(text for text in (obstacle and obstacle.message, warning) if text)
    if match := _NOT_FOUND.search(message):
        kind, name = match[1].lower(), match[2]
        return _missing(job, pod, kind, name)
    if pod.scheduled is None:
        words = f"{pod.name}: {message}"
        return Blocked(Reason.UNSCHEDULABLE, words, None) if obstacle else None
    found = _known(reason, message)
    if found is None and obstacle and obstacle.since:
        return Blocked(Reason.NOT_STARTING, f"{pod.name}: {message}", obstacle.since)
    if found is None and reason not in ("", _CREATING):
        found, message = Reason.NOT_STARTING, f"{reason}: {message}"
    if found is None and warning and now - pod.scheduled >= SLOW:
        found = Reason.NOT_STARTING
    if found is None and not warning:
        return _silent(pod, observed, now)
    return Blocked(found, f"{pod.name}: {message}", pod.scheduled) if found else None


def _silent(pod: Pod, observed: Observed, now: datetime) -> Blocked | None:
    """Return what keeps a pod whose node makes no container of it and does not say why; it has time
    from the last that was heard. Its Events may bear any time, and anyone may write some."""
    if pod.made or pod.scheduled is None or pod.uid not in observed.signs:
        return None
    sign, since = observed.signs[pod.uid], pod.scheduled
    longest = pod.scheduled + LONGEST_PULL
    if sign and sign.reason == _PULLING:
        return Blocked(Reason.PENDING, f"{pod.name}: {sign.message}", longest)
    if sign and sign.time and sign.time <= now:
        since = min(max(since, sign.time), longest)
    if now - since < SLOW:
        return None
    heard = f"; the last Event: {sign.message}" if sign else ""
    text = f"{pod.name}: its node makes no container of it and does not say why{heard}"
    return Blocked(Reason.NOT_STARTING, text, since)


def _lasting(obstacle: Obstacle | None, now: datetime) -> Obstacle | None:
    passing = obstacle and obstacle.since and now - obstacle.since < SLOW
    return None if passing else obstacle


def _known(reason: str, message: str) -> Reason | None:
    if reason in _IMAGE_REASONS:
        return Reason.IMAGE_UNAVAILABLE
    if _VOLUME.search(message):
        return Reason.VOLUME_UNAVAILABLE
    if reason in _CONTAINER_REASONS or "create pod sandbox" in message:
        return Reason.CONTAINER_REFUSED
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
    """Return the fields that name a ConfigMap for a reward's code, or a chat template."""
    rewards = python_rewards(job.spec).items()
    given = job.spec.model.chat_template
    template = given and given.config_map and given.config_map.name == config_map
    return [
        *(["spec.model.chatTemplate.configMap"] if template else []),
        *(
            f"spec.method.grpo.rewards[{name}].python.configMap"
            for name, source in rewards
            if source.config_map.name == config_map
        ),
    ]
