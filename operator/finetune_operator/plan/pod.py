"""The pod template of a worker; it passes Pod Security `restricted` (hostPath caches aside)."""

from __future__ import annotations

from typing import Any

from finetune_api.job import FineTuneJob
from finetune_contract.model import sha256_digest
from finetune_contract.runconfig import (
    ATTEMPT_VARIABLE,
    DIGEST_VARIABLE,
    FILE_NAME,
    RunConfig,
)
from finetune_operator.job.method import isolated_rewards
from finetune_operator.job.names import Object, labels, service_account_name
from finetune_operator.plan.container import ENVIRONMENT, container
from finetune_operator.plan.reward_runner import SPARED, runner_volumes, sidecar
from finetune_operator.plan.volumes import RUN_CONFIG_DIRECTORY, VolumeAndMount, volumes

USER = 65532


def pod_template(
    job: FineTuneJob, attempt: int, image: str, trainer: str, config: RunConfig
) -> Object:
    """Return the template of every pod of an attempt; `trainer` is its container's name in it.

    It tells the trainer the digest of its RunConfig: the ConfigMap may be made anew by someone
    between the operator's look at it and the mount; the environment of a pod never changes.
    """
    mounted = volumes(job, attempt)
    spec: dict[str, Any] = {
        **pod_settings(job, job.spec.run_policy.termination_grace_period_seconds),
        "containers": [_trainer(job, image, trainer, mounted, config)],
        "volumes": [volume for volume, _ in mounted],
    }
    metadata: Object = {"labels": labels(job, attempt)}
    if isolated_rewards(job.spec):
        spec["initContainers"] = [sidecar(job, image)]
        spec["volumes"] += [volume for volume, _ in runner_volumes(job)]
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


def _trainer(
    job: FineTuneJob, image: str, name: str, mounted: list[VolumeAndMount], config: RunConfig
) -> Object:
    path = f"{RUN_CONFIG_DIRECTORY}/{FILE_NAME}"
    command = ["python", "-m", "finetune_trainer.launch", "--run-config", path]
    digest = sha256_digest(config.to_json().encode())
    of_the_attempt = {ATTEMPT_VARIABLE: str(config.layout.attempt), DIGEST_VARIABLE: digest}
    trainer = container(name, image, command, mounted, {**ENVIRONMENT, **of_the_attempt})
    resources = job.spec.workers.resources
    if resources is not None:
        trainer["resources"] = {
            name: {resource: str(amount) for resource, amount in amounts.items()}
            for name, amounts in (("limits", resources.limits), ("requests", resources.requests))
            if amounts
        }
    return trainer
