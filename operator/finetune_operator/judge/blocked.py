"""What keeps an attempt's pods from starting, from what the cluster says of them. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from finetune_api.job import FineTuneJob
from finetune_contract.reasons import Reason
from finetune_operator.job.credentials import credentials
from finetune_operator.job.method import python_rewards
from finetune_operator.judge.observed import Observed, Pod

_IMAGE_REASONS = {
    "ErrImagePull",
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "InvalidImageName",
    "ImageInspectError",
    "RegistryUnavailable",
}
_CONTAINER_REASONS = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
_NOT_FOUND = re.compile(r'(secret|configmap|persistentvolumeclaim) "([^"]+)" not found', re.I)


@dataclass(frozen=True)
class Blocked:
    """What a pod waits for; `since` is when it was given a node."""

    reason: Reason
    message: str
    since: datetime | None


def blocked(job: FineTuneJob, pods: list[Pod], observed: Observed) -> Blocked | None:
    """Return what keeps the first of the pods that have not started from doing so."""
    found = (_blocked(job, p, observed) for p in pods if not p.running and not p.over)
    return next((b for b in found if b is not None), None)


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
