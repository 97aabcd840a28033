"""The objects of one attempt: what its pods need first, and what starts them."""

from __future__ import annotations

from collections.abc import Sequence

from finetune_api.job import FineTuneJob
from finetune_api.status import Attempt
from finetune_contract.runconfig import FILE_NAME, RunConfig
from finetune_operator.job.backend import Backend
from finetune_operator.job.footprint import Footprint
from finetune_operator.job.names import Object, attempt_name, child
from finetune_operator.job.run_config import run_config
from finetune_operator.job.workers import asks_for_gpus
from finetune_operator.plan.lease import lease, role, role_binding
from finetune_operator.plan.objects import Objects, shared
from finetune_operator.plan.pod import pod_template
from finetune_operator.plan.reward_runner import REWARDS_FILE, rewards_document
from finetune_operator.plan.volumes import pod_mounts


def config_map(job: FineTuneJob, attempt: int, config: RunConfig) -> Object:
    """Return the ConfigMap with the RunConfig and what the reward runner is told of it, immutable:
    all pods of an attempt read the same document."""
    data = {FILE_NAME: config.to_json()}
    rewards = rewards_document(job)
    if rewards is not None:
        data[REWARDS_FILE] = rewards
    return child(job, "v1", "ConfigMap", attempt, immutable=True, data=data)


def given(job: FineTuneJob, attempt: int, backend: Backend) -> tuple[tuple[str, str], ...]:
    """Return kind and name of what the pods of an attempt are made of and told by."""
    name = attempt_name(job.name, attempt)
    return tuple((kind, name) for kind in ("ConfigMap", *backend.kinds))


def upkeep(
    job: FineTuneJob, attempt: int, backend: Backend, pull_secrets: Sequence[str] = ()
) -> Objects:
    """Return what is kept as planned while the pods run. What they were given is only to be there,
    whatever would be planned now, and what costs most is to plan it."""
    prepared = (*shared(job, pull_secrets), role(job, attempt), lease(job, attempt))
    return Objects(prepared, (role_binding(job, attempt),), (), given(job, attempt, backend))


def attempt_objects(
    job: FineTuneJob,
    attempt: Attempt,
    backend: Backend,
    heartbeat_seconds: float,
    pull_secrets: Sequence[str] = (),
) -> Objects:
    """Return every object that must exist while the attempt runs."""
    number = attempt.number
    config = run_config(
        job,
        attempt=number,
        uid=job.uid,
        image=attempt.image,
        footprint=Footprint.of(job, attempt),
        heartbeat_seconds=heartbeat_seconds,
        mounts=pod_mounts(job),
        gpus=asks_for_gpus(job),
    )
    template = pod_template(job, number, attempt.image, backend.container, config)
    prepared = (
        *shared(job, pull_secrets),
        config_map(job, number, config),
        role(job, number),
        lease(job, number),
    )
    return Objects(prepared, (role_binding(job, number),), backend.objects(job, number, template))
