"""Volumes of a pod and where the trainer finds them."""

from __future__ import annotations

from typing import Any

from finetune_api.job import FineTuneJob
from finetune_api.workers import Volume
from finetune_contract.layout import RewardRunner
from finetune_operator.job.credentials import credential_directories, credentials
from finetune_operator.job.method import isolated_rewards
from finetune_operator.job.names import attempt_name
from finetune_operator.job.run_config import Mounts

RUN_CONFIG_VOLUME = "run-config"
RUN_CONFIG_DIRECTORY = "/etc/finetune/run"
CREDENTIALS_DIRECTORY = "/etc/finetune/credentials"
CHAT_TEMPLATE = "/etc/finetune/chat-template/template.jinja"
CACHE_DIRECTORY = "/var/cache/finetune"
TOKEN_DIRECTORY = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - a path
SHARED_MEMORY = "/dev/shm"  # noqa: S108 - a mount point
_GROUP_READABLE = 0o440

# Where the reward runner listens; it and the trainer share nothing else.
SOCKET_DIRECTORY = "/run/finetune/rewards"
SOCKET = f"{SOCKET_DIRECTORY}/socket"
SOCKET_VOLUME = "rewards-socket"

VolumeAndMount = tuple[dict[str, Any], dict[str, Any]]


def credentials_directory(part: str) -> str:
    """Return where the credentials of a part of the job are mounted."""
    return f"{CREDENTIALS_DIRECTORY}/{part}"


def pod_mounts(job: FineTuneJob) -> Mounts:
    """Return what the trainer finds ready in a pod."""
    directories = {part: credentials_directory(part) for part in credentials(job)}
    return Mounts(
        credentials=credential_directories(job, directories),
        chat_template=CHAT_TEMPLATE if _chat_template(job) else None,
        cache_dir=CACHE_DIRECTORY if job.spec.model.cache else None,
        reward_runner=RewardRunner(socket=SOCKET) if isolated_rewards(job.spec) else None,
    )


def volumes(job: FineTuneJob, attempt: int) -> list[VolumeAndMount]:
    """Return every volume of a pod with its mount in the trainer's container."""
    run_config = {"configMap": {"name": attempt_name(job.name, attempt)}}
    found = [
        volume(RUN_CONFIG_VOLUME, run_config, RUN_CONFIG_DIRECTORY, read_only=True),
        volume("scratch", {"emptyDir": {}}, "/tmp"),  # noqa: S108 - a mount point
        volume("token", {"projected": _token()}, TOKEN_DIRECTORY, read_only=True),
    ]
    found += [credentials_mount(part, of.secret) for part, of in credentials(job).items()]
    found += _chat_template(job) + _cache(job) + _shared_memory(job)
    if isolated_rewards(job.spec):
        found.append(volume(SOCKET_VOLUME, small_empty_dir(), SOCKET_DIRECTORY, read_only=True))
    return found + user_volumes(job)


def credentials_mount(part: str, secret: str) -> VolumeAndMount:
    """Return the volume with the credentials of a part of the job, and its mount."""
    source = {"secret": {"secretName": secret, "defaultMode": _GROUP_READABLE}}
    return volume(f"{part}-credentials", source, credentials_directory(part), read_only=True)


def user_volumes(job: FineTuneJob) -> list[VolumeAndMount]:
    """Return the volumes of spec.workers.volumes with their mounts."""
    return [
        volume(f"user-{v.name}", _source(v), v.mount_path, read_only=v.read_only)
        for v in job.spec.workers.volumes or []
    ]


def small_empty_dir() -> dict[str, Any]:
    """Return an emptyDir that can fill neither the node's disk nor, past its limit, memory."""
    return {"emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}}


def volume(
    name: str,
    source: dict[str, Any],
    path: str,
    *,
    read_only: bool = False,
    file: str | None = None,
) -> VolumeAndMount:
    """Return a volume and its mount; `file` is the one of its files that is mounted."""
    mount: dict[str, Any] = {"name": name, "mountPath": path}
    if file is not None:
        mount["subPath"] = file
    if read_only:
        mount["readOnly"] = True
    return {"name": name, **source}, mount


def _token() -> dict[str, Any]:
    """Return what a ServiceAccount's automounted volume holds, for one container only."""
    authority = {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}
    namespace = {"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}
    return {
        "defaultMode": _GROUP_READABLE,
        "sources": [
            {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
            {"configMap": authority},
            {"downwardAPI": {"items": [namespace]}},
        ],
    }


def _chat_template(job: FineTuneJob) -> list[VolumeAndMount]:
    """Return the template in a ConfigMap by itself: a change of it does not reach a subPath."""
    given = job.spec.model.chat_template
    if given is None or (of := given.config_map) is None:
        return []
    file = CHAT_TEMPLATE.rpartition("/")[2]
    source = {"configMap": {"name": of.name, "items": [{"key": of.key, "path": file}]}}
    return [volume("chat-template", source, CHAT_TEMPLATE, read_only=True, file=file)]


def _cache(job: FineTuneJob) -> list[VolumeAndMount]:
    cache = job.spec.model.cache
    source: dict[str, Any]
    if cache is None:
        return []
    if cache.host_path is not None:
        source = {"hostPath": {"path": cache.host_path.path, "type": "DirectoryOrCreate"}}
    else:
        assert cache.persistent_volume_claim is not None, "the schema asks for one of the two"
        source = {"persistentVolumeClaim": {"claimName": cache.persistent_volume_claim.claim_name}}
    return [volume("model-cache", source, CACHE_DIRECTORY)]


def _shared_memory(job: FineTuneJob) -> list[VolumeAndMount]:
    """NCCL between the GPUs of a pod needs more than a container's 64 MiB of /dev/shm."""
    taken = {v.mount_path.rstrip("/") for v in job.spec.workers.volumes or []}
    if job.spec.workers.processes_per_worker == 1 or SHARED_MEMORY in taken:
        return []
    return [volume("shared-memory", {"emptyDir": {"medium": "Memory"}}, SHARED_MEMORY)]


def _source(volume: Volume) -> dict[str, Any]:
    if volume.persistent_volume_claim is not None:
        claim = {"claimName": volume.persistent_volume_claim.claim_name}
        return {"persistentVolumeClaim": claim}
    if volume.config_map is not None:
        return {"configMap": {"name": volume.config_map.name}}
    assert volume.empty_dir is not None, "the schema asks for exactly one source"
    source: dict[str, Any] = {}
    if volume.empty_dir.medium:
        source["medium"] = volume.empty_dir.medium
    if volume.empty_dir.size_limit is not None:
        source["sizeLimit"] = str(volume.empty_dir.size_limit)
    return {"emptyDir": source}
