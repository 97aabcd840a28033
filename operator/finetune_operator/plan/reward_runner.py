"""The isolated reward runner beside the trainer: a native sidecar (Kubernetes 1.29).

It has no token, no credentials and no disk; what the user's code in it may do is confined further
by the runner itself. Code is mounted by subPath, which a change of the ConfigMap does not reach: a
run scores with one code from its beginning to its end.
"""

from __future__ import annotations

from finetune_api.job import FineTuneJob
from finetune_api.quantity import amount, exact
from finetune_contract.model import canonical_json, sha256_digest
from finetune_contract.rewards import DIGEST_VARIABLE
from finetune_operator.job.method import isolated_rewards, python_rewards, reward_recipe
from finetune_operator.job.names import REWARDS_CONTAINER, Object
from finetune_operator.plan.container import BARE, container, modest
from finetune_operator.plan.volumes import (
    RUN_CONFIG_VOLUME,
    SOCKET,
    SOCKET_DIRECTORY,
    SOCKET_VOLUME,
    VolumeAndMount,
    small_empty_dir,
    volume,
)

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


def rewards_document(job: FineTuneJob) -> str | None:
    """Return the JSON of the rewards that the runner scores; None if there are none."""
    recipes = [reward_recipe(reward) for reward in isolated_rewards(job.spec)]
    if not recipes:
        return None
    return canonical_json(
        [r.model_dump(mode="json", by_alias=True, exclude_none=True) for r in recipes]
    )


def sidecar(job: FineTuneJob, image: str) -> Object:
    """Return the init container that runs until the pod ends."""
    command = ["python", "-m", "finetune_rewards", "serve", "--rewards", REWARDS_PATH]
    command += ["--socket", SOCKET, *source_arguments(job)]
    socket = volume(SOCKET_VOLUME, small_empty_dir(), SOCKET_DIRECTORY)
    rewards = document(RUN_CONFIG_VOLUME, {})  # the trainer's volume, which the pod has anyway
    sidecar = runner(job, image, command, [rewards, socket])
    if _trainer_is_guaranteed(job):
        sidecar["resources"]["requests"] = dict(sidecar["resources"]["limits"])
    return {**sidecar, "restartPolicy": "Always"}


def _trainer_is_guaranteed(job: FineTuneJob) -> bool:
    """Tell whether the trainer's container asks for the CPU and memory that it is limited to.

    If every other container does so too, the pod is Guaranteed: evicted last, and with cores of its
    own where the kubelet gives them.
    """
    resources, limited = job.spec.workers.resources, job.spec.workers.limits
    requests = {**limited, **((resources.requests if resources else None) or {})}
    return all(
        name in limited and exact(requests[name]) == exact(limited[name])
        for name in ("cpu", "memory")
    )


def document(name: str, source: Object) -> VolumeAndMount:
    """Return the volume with the JSON of the rewards, and its mount."""
    return volume(name, source, REWARDS_PATH, read_only=True, file=REWARDS_FILE)


def runner(
    job: FineTuneJob, image: str, command: list[str], mounted: list[VolumeAndMount]
) -> Object:
    """Return a container that runs rewards, with room for what their processes may take."""
    own = python_rewards(job.spec)
    memory = _RUNNER_MEMORY + sum(amount(source.memory) for source in own.values())
    if len(own) < len(isolated_rewards(job.spec)):
        memory += _BUILTIN_MEMORY
    mounted = [*mounted, *runner_volumes(job)]
    # Whoever may write the object that holds the rewards can not write a pod's environment.
    told = {DIGEST_VARIABLE: sha256_digest((rewards_document(job) or "").encode())}
    runner = container(REWARDS_CONTAINER, image, command, mounted, {**BARE, **told})
    return {**runner, "resources": modest(str(memory))}


def source_arguments(job: FineTuneJob) -> list[str]:
    """Return the arguments that tell where the user's code is."""
    names = python_rewards(job.spec)
    return [part for name in names for part in ("--source", f"{name}={_source_path(name)}")]


def runner_volumes(job: FineTuneJob) -> list[VolumeAndMount]:
    """Return what the runner alone mounts: the user's code, each file by itself, and a /tmp."""
    sources = []
    for name, source in python_rewards(job.spec).items():
        file, code = f"{name}.py", source.config_map
        items = {"name": code.name, "items": [{"key": code.key, "path": file}]}
        path = _source_path(name)
        sources.append(
            volume(f"reward-{name}-source", {"configMap": items}, path, read_only=True, file=file)
        )
    return [*sources, volume(_TMP_VOLUME, small_empty_dir(), "/tmp")]  # noqa: S108 - a mount point


def _source_path(reward: str) -> str:
    return f"{SOURCES_DIRECTORY}/{reward}.py"
