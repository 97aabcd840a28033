"""The isolated reward runner beside the trainer: a native sidecar (Kubernetes 1.29).

It has no token, no credentials and no disk; what the user's code in it may do is confined further
by the runner itself. Code is mounted by subPath, which a change of the ConfigMap does not reach: a
run scores with one code from its beginning to its end.
"""

from __future__ import annotations

from typing import Any

from finetune_api.job import FineTuneJob
from finetune_api.quantity import amount, exact
from finetune_contract.model import canonical_json
from finetune_operator.job.method import isolated_rewards, python_rewards, reward_recipe
from finetune_operator.job.names import REWARDS_CONTAINER, Object
from finetune_operator.job.workers import limits
from finetune_operator.plan.volumes import SOCKET, SOCKET_DIRECTORY, SOCKET_VOLUME, small_empty_dir

REWARDS_FILE = "rewards.json"
REWARDS_PATH = f"/etc/finetune/rewards/{REWARDS_FILE}"
SOURCES_DIRECTORY = "/etc/finetune/rewards/sources"
# Cloud webhooks that give a ServiceAccount's identity to every container are told to spare it.
SPARED = {
    "eks.amazonaws.com/skip-containers": REWARDS_CONTAINER,
    "azure.workload.identity/skip-containers": REWARDS_CONTAINER,
}
_TMP_VOLUME = "rewards-tmp"
_RUNNER_MEMORY = 2**29  # bytes
_BUILTIN_MEMORY = 2 * 2**30  # what the process of the builtin rewards may take
_ENVIRONMENT = {"HOME": "/tmp", "USER": "finetune"}  # noqa: S108 - an emptyDir of the container's
CONFINED: Object = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def rewards_document(job: FineTuneJob) -> str | None:
    """Return the JSON of the rewards that the runner scores; None if there are none."""
    recipes = [reward_recipe(reward) for reward in isolated_rewards(job.spec)]
    if not recipes:
        return None
    return canonical_json(
        [r.model_dump(mode="json", by_alias=True, exclude_none=True) for r in recipes]
    )


def sidecar(job: FineTuneJob, image: str, document: Object) -> Object:
    """Return the init container that runs until the pod ends.

    `document` is the mount of the JSON of its rewards.
    """
    command = ["python", "-m", "finetune_rewards", "serve", "--rewards", REWARDS_PATH]
    command += ["--socket", SOCKET, *source_arguments(job)]
    mounts = [
        document,
        {"name": SOCKET_VOLUME, "mountPath": SOCKET_DIRECTORY},
        *runner_mounts(job),
    ]
    container = runner(job, image, command, mounts)
    if _trainer_is_guaranteed(job):
        container["resources"]["requests"] = dict(container["resources"]["limits"])
    return {**container, "restartPolicy": "Always"}


def _trainer_is_guaranteed(job: FineTuneJob) -> bool:
    """Tell whether the trainer's container asks for the CPU and memory that it is limited to.

    If every other container does so too, the pod is Guaranteed: evicted last, and with cores of its
    own where the kubelet gives them.
    """
    resources, limited = job.spec.workers.resources, limits(job)
    requests = {**limited, **((resources.requests if resources else None) or {})}
    return all(
        name in limited and exact(requests[name]) == exact(limited[name])
        for name in ("cpu", "memory")
    )


def runner(job: FineTuneJob, image: str, command: list[str], mounts: list[Object]) -> Object:
    """Return a container that runs rewards, with room for what their processes may take."""
    own = python_rewards(job.spec)
    memory = _RUNNER_MEMORY + sum(amount(source.memory) for source in own.values())
    if len(own) < len(isolated_rewards(job.spec)):
        memory += _BUILTIN_MEMORY
    return {
        "name": REWARDS_CONTAINER,
        "image": image,
        "command": command,
        "env": [{"name": name, "value": value} for name, value in _ENVIRONMENT.items()],
        "volumeMounts": mounts,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "resources": {
            "requests": {"cpu": "100m", "memory": "256Mi"},
            "limits": {"cpu": "2", "memory": str(memory)},
        },
        "securityContext": CONFINED,
    }


def source_arguments(job: FineTuneJob) -> list[str]:
    """Return the arguments that tell where the user's code is."""
    names = python_rewards(job.spec)
    return [part for name in names for part in ("--source", f"{name}={_source_path(name)}")]


def runner_mounts(job: FineTuneJob) -> list[Object]:
    """Return the mounts of the user's code, each file by itself, and of a /tmp."""
    sources: list[dict[str, Any]] = [
        {
            "name": _source_volume(name),
            "mountPath": _source_path(name),
            "subPath": _file_name(name),
            "readOnly": True,
        }
        for name in python_rewards(job.spec)
    ]
    return [*sources, {"name": _TMP_VOLUME, "mountPath": "/tmp"}]  # noqa: S108 - a mount point


def runner_volumes(job: FineTuneJob) -> list[Object]:
    """Return the volumes that the runner alone mounts."""
    sources = [
        {
            "name": _source_volume(name),
            "configMap": {
                "name": source.config_map.name,
                "items": [{"key": source.config_map.key, "path": _file_name(name)}],
            },
        }
        for name, source in python_rewards(job.spec).items()
    ]
    return [*sources, {"name": _TMP_VOLUME, **small_empty_dir()}]


def _source_volume(reward: str) -> str:
    return f"reward-{reward}-source"


def _file_name(reward: str) -> str:
    return f"{reward}.py"


def _source_path(reward: str) -> str:
    return f"{SOURCES_DIRECTORY}/{_file_name(reward)}"
