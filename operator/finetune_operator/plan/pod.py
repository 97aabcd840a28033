"""The pod template of a worker; it passes Pod Security `restricted` (hostPath caches aside)."""

from __future__ import annotations

from typing import Any

from finetune_api.job import FineTuneJob
from finetune_contract.runconfig import FILE_NAME
from finetune_operator.job.method import isolated_rewards
from finetune_operator.job.names import Object, labels, service_account_name
from finetune_operator.plan.reward_runner import (
    CONFINED,
    REWARDS_FILE,
    REWARDS_PATH,
    SPARED,
    runner_volumes,
    sidecar,
)
from finetune_operator.plan.volumes import RUN_CONFIG_DIRECTORY, RUN_CONFIG_VOLUME, volumes

USER = 65532
# The root file system is read-only and the user has no entry in /etc/passwd: caches go to /tmp, and
# libraries that ask for the user's name must find one.
ENVIRONMENT = {
    "HOME": "/tmp",  # noqa: S108 - an emptyDir of the pod
    "USER": "finetune",
    "HF_HOME": "/tmp/huggingface",  # noqa: S108
    "TORCH_HOME": "/tmp/torch",  # noqa: S108
    "TORCH_EXTENSIONS_DIR": "/tmp/torch-extensions",  # noqa: S108
    "TORCHINDUCTOR_CACHE_DIR": "/tmp/torch-inductor",  # noqa: S108
    "TRITON_CACHE_DIR": "/tmp/triton",  # noqa: S108
}


def pod_template(job: FineTuneJob, attempt: int, image: str, container: str) -> Object:
    """Return the template of every pod of an attempt; `container` is the trainer's name in it."""
    mounted = volumes(job, attempt)
    spec: dict[str, Any] = {
        **pod_settings(job, job.spec.run_policy.termination_grace_period_seconds),
        "containers": [_trainer(job, image, container, [mount for _, mount in mounted])],
        "volumes": [volume for volume, _ in mounted],
    }
    metadata: Object = {"labels": labels(job, attempt)}
    if isolated_rewards(job.spec):
        document = {
            "name": RUN_CONFIG_VOLUME,
            "mountPath": REWARDS_PATH,
            "subPath": REWARDS_FILE,
            "readOnly": True,
        }
        spec["initContainers"] = [sidecar(job, image, document)]
        spec["volumes"] += runner_volumes(job)
        metadata["annotations"] = SPARED
    return {"metadata": metadata, "spec": spec}


def pod_settings(job: FineTuneJob, grace_seconds: int) -> Object:
    """Return who a pod of the job runs as, on which nodes, and how long it has to end."""
    workers = job.spec.workers
    settings: Object = {
        "serviceAccountName": service_account_name(job),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": grace_seconds,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    if workers.node_selector:
        settings["nodeSelector"] = dict(workers.node_selector)
    if workers.tolerations:
        settings["tolerations"] = [
            t.model_dump(by_alias=True, exclude_none=True) for t in workers.tolerations
        ]
    return settings


def _trainer(job: FineTuneJob, image: str, name: str, mounts: list[dict[str, Any]]) -> Object:
    container: Object = {
        "name": name,
        "image": image,
        "command": [
            "python",
            "-m",
            "finetune_trainer.launch",
            "--run-config",
            f"{RUN_CONFIG_DIRECTORY}/{FILE_NAME}",
        ],
        "env": [{"name": name, "value": value} for name, value in ENVIRONMENT.items()],
        "volumeMounts": mounts,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": CONFINED,
    }
    resources = job.spec.workers.resources
    if resources is not None:
        container["resources"] = {
            name: {resource: str(amount) for resource, amount in amounts.items()}
            for name, amounts in (("limits", resources.limits), ("requests", resources.requests))
            if amounts
        }
    return container
