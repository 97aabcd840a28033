"""Volumes of a pod and where the trainer finds them."""

from __future__ import annotations

from typing import Any

from finetune_api.job import FineTuneJob
from finetune_api.types import SecretRef
from finetune_api.workers import Volume
from finetune_operator.plan.names import attempt_name
from finetune_operator.plan.run_config import Mounts

RUN_CONFIG_DIRECTORY = "/etc/finetune/run"
CREDENTIALS_DIRECTORY = "/etc/finetune/credentials"
CACHE_DIRECTORY = "/var/cache/finetune"
TOKEN_DIRECTORY = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - a path
SHARED_MEMORY = "/dev/shm"  # noqa: S108 - a mount point
_GROUP_READABLE = 0o440

VolumeAndMount = tuple[dict[str, Any], dict[str, Any]]


def credentials(job: FineTuneJob) -> dict[str, SecretRef]:
    """Return the Secrets that the job names, by the part of the job that uses them."""
    refs = {
        "model": job.spec.model.credentials_secret_ref,
        "data": job.spec.data.credentials_secret_ref,
        "output": job.spec.output.credentials_secret_ref,
        "tracking": job.spec.tracking.credentials_secret_ref if job.spec.tracking else None,
    }
    return {part: ref for part, ref in refs.items() if ref is not None}


def credentials_volume(part: str) -> str:
    """Return the name of the volume with the credentials of a part of the job."""
    return f"{part}-credentials"


def pod_mounts(job: FineTuneJob) -> Mounts:
    """Return where the trainer finds things in a pod."""
    directories = {part: f"{CREDENTIALS_DIRECTORY}/{part}" for part in credentials(job)}
    return Mounts(
        model_credentials=directories.get("model"),
        data_credentials=directories.get("data"),
        output_credentials=directories.get("output"),
        tracking_credentials=directories.get("tracking"),
        cache=CACHE_DIRECTORY if job.spec.model.cache else None,
    )


def volumes(job: FineTuneJob, attempt: int) -> list[VolumeAndMount]:
    """Return every volume of a pod with its mount in the `pytorch` container."""
    run_config = {"configMap": {"name": attempt_name(job.name, attempt)}}
    found = [
        _volume("run-config", run_config, RUN_CONFIG_DIRECTORY, read_only=True),
        _volume("scratch", {"emptyDir": {}}, "/tmp"),  # noqa: S108 - a mount point
        _volume("token", {"projected": _token()}, TOKEN_DIRECTORY, read_only=True),
    ]
    for part, ref in credentials(job).items():
        source = {"secret": {"secretName": ref.name, "defaultMode": _GROUP_READABLE}}
        mount = f"{CREDENTIALS_DIRECTORY}/{part}"
        found.append(_volume(credentials_volume(part), source, mount, read_only=True))
    found += _cache(job) + _shared_memory(job)
    for volume in job.spec.workers.volumes or []:
        name = f"user-{volume.name}"
        found.append(_volume(name, _source(volume), volume.mount_path, read_only=volume.read_only))
    return found


def _volume(
    name: str, source: dict[str, Any], path: str, read_only: bool = False
) -> VolumeAndMount:
    mount: dict[str, Any] = {"name": name, "mountPath": path}
    if read_only:
        mount["readOnly"] = True
    return {"name": name, **source}, mount


def _token() -> dict[str, Any]:
    """Return what a ServiceAccount's automounted volume holds, for one container only."""
    namespace = {"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}
    return {
        "defaultMode": _GROUP_READABLE,
        "sources": [
            {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
            {
                "configMap": {
                    "name": "kube-root-ca.crt",
                    "items": [{"key": "ca.crt", "path": "ca.crt"}],
                }
            },
            {"downwardAPI": {"items": [namespace]}},
        ],
    }


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
    return [_volume("model-cache", source, CACHE_DIRECTORY)]


def _shared_memory(job: FineTuneJob) -> list[VolumeAndMount]:
    """NCCL between the GPUs of a pod needs more than a container's 64 MiB of /dev/shm."""
    taken = {volume.mount_path.rstrip("/") for volume in job.spec.workers.volumes or []}
    if job.spec.workers.processes_per_worker == 1 or SHARED_MEMORY in taken:
        return []
    return [_volume("shared-memory", {"emptyDir": {"medium": "Memory"}}, SHARED_MEMORY)]


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
