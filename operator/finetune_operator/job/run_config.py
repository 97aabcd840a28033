"""FineTuneJob -> RunConfig: what the trainer is told, in a pod or on this machine."""

from __future__ import annotations

from dataclasses import dataclass, field

from finetune_api.job import FineTuneJob
from finetune_api.spec import FineTuneJobSpec
from finetune_api.training import AUTO
from finetune_contract import layout as contract
from finetune_contract.model import filled
from finetune_contract.recipe import Optimizer, Recipe, TrainingRecipe
from finetune_contract.runconfig import VERSION, RunConfig
from finetune_operator.job.errors import checked
from finetune_operator.job.footprint import Footprint
from finetune_operator.job.method import grpo_recipe, rollout
from finetune_operator.job.names import attempt_name


@dataclass(frozen=True)
class Mounts:
    """What the trainer finds ready, as a layout names it; None where there is none."""

    credentials: contract.Credentials = field(default_factory=contract.Credentials)
    cache_dir: str | None = None
    scratch_dir: str = "/tmp/finetune"  # noqa: S108 - private to the container
    reward_runner: contract.RewardRunner | None = None
    chat_template: str | None = None


@checked()
def run_config(
    job: FineTuneJob,
    *,
    attempt: int,
    uid: str,
    image: str,
    footprint: Footprint,
    heartbeat_seconds: float | None,
    mounts: Mounts,
    gpus: bool = False,
) -> RunConfig:
    """Return the RunConfig of one attempt.

    `uid` is metadata.uid, or the run id without a cluster;
    `heartbeat_seconds` is None where no Lease is to be renewed; `gpus` tells whether the trainer
    must find GPUs. Raises Stalled(InvalidSpec) if the trainer could not take it, such as batches
    that do not fit together.
    """
    spec = job.spec
    heartbeat = heartbeat_seconds and contract.Heartbeat(
        lease=attempt_name(job.name, attempt), interval_seconds=heartbeat_seconds
    )
    namespace = job.metadata.get("namespace", "default")
    return RunConfig(
        version=VERSION,
        recipe=recipe(spec),
        layout=contract.Layout(
            job=contract.JobRef(name=job.name, namespace=namespace, uid=uid),
            attempt=attempt,
            image=image,
            output_uri=spec.output.uri,
            workers=spec.workers.replicas,
            processes_per_worker=spec.workers.processes_per_worker,
            gpus=gpus,
            micro_batch_size=footprint.micro_batch_size,
            zero_stage=_zero_stage(spec),
            offload=footprint.offload,
            gradient_checkpointing=footprint.gradient_checkpointing,
            packing=spec.training.packing,
            checkpoint=filled(contract.CheckpointPolicy, spec.checkpoint),
            tracking=_tracking(spec, namespace),
            rollout=rollout(spec),
            **vars(mounts),
            heartbeat=heartbeat or None,
            stall_timeout_seconds=spec.run_policy.stall_timeout_seconds,
            grace_seconds=spec.run_policy.termination_grace_period_seconds,
        ),
    )


def _zero_stage(spec: FineTuneJobSpec) -> contract.ZeroStage | None:
    stage = spec.memory.zero_stage
    return None if stage == AUTO else contract.ZeroStage(int(stage))


def _tracking(spec: FineTuneJobSpec, namespace: str) -> contract.Tracking | None:
    if (tracking := spec.tracking) is None:
        return None
    return filled(contract.Tracking, tracking, project=tracking.project or namespace)


@checked()
def recipe(spec: FineTuneJobSpec) -> Recipe:
    """Return what decides the artifact: every field but those of the layout. Raises Stalled."""
    return filled(
        Recipe,
        spec,
        method=spec.method.type,
        grpo=spec.method.grpo and grpo_recipe(spec.method.grpo),
        training=filled(TrainingRecipe, spec.training, optimizer=Optimizer.ADAMW),
        export=spec.output.export,
    )
