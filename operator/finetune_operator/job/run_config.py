"""FineTuneJob -> RunConfig: what the trainer is told, in a pod or on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from finetune_api.job import FineTuneJob
from finetune_api.spec import FineTuneJobSpec
from finetune_api.training import AUTO
from finetune_contract import layout as contract
from finetune_contract import recipe as contract_recipe
from finetune_contract.runconfig import VERSION, RunConfig
from finetune_operator.job.method import grpo_recipe, rollout
from finetune_operator.job.names import attempt_name


@dataclass(frozen=True)
class Mounts:
    """Directories that the trainer finds ready; None where there is none."""

    model_credentials: str | None = None
    data_credentials: str | None = None
    output_credentials: str | None = None
    tracking_credentials: str | None = None
    cache: str | None = None
    scratch: str = "/tmp/finetune"  # noqa: S108 - private to the container
    rollout_credentials: str | None = None
    reward_credentials: Mapping[str, str] = field(default_factory=dict)  # by the reward's name
    reward_socket: str | None = None  # of the isolated runner, where one runs already
    reward_sources: Mapping[str, str] = field(default_factory=dict)  # by the reward's name


def run_config(
    job: FineTuneJob,
    *,
    attempt: int,
    uid: str,
    image: str,
    micro_batch_size: int | None,
    heartbeat_seconds: float | None,
    mounts: Mounts,
    gpus: bool = False,
) -> RunConfig:
    """Return the RunConfig of one attempt.

    `uid` is metadata.uid, or the run id without a cluster; `micro_batch_size` None is Auto;
    `heartbeat_seconds` is None where no Lease is to be renewed; `gpus` tells whether the trainer
    must find GPUs. Raises pydantic's ValidationError if the batches do not fit together.
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
            micro_batch_size=micro_batch_size,
            zero_stage=_zero_stage(spec),
            offload=tuple(spec.memory.offload),
            gradient_checkpointing=spec.memory.gradient_checkpointing,
            packing=spec.training.packing,
            checkpoint=contract.CheckpointPolicy(
                every_steps=spec.checkpoint.every_steps,
                every_minutes=spec.checkpoint.every_minutes,
                keep=spec.checkpoint.keep,
            ),
            tracking=_tracking(spec, namespace),
            rollout=rollout(spec),
            reward_runner=_reward_runner(mounts),
            credentials=_credentials(mounts),
            cache_dir=mounts.cache,
            scratch_dir=mounts.scratch,
            heartbeat=heartbeat or None,
            grace_seconds=spec.run_policy.termination_grace_period_seconds,
        ),
    )


def micro_batch_size(spec: FineTuneJobSpec) -> int | None:
    """Return training.microBatchSize; None is Auto."""
    size = spec.training.micro_batch_size
    return None if size == AUTO else int(size)


def _zero_stage(spec: FineTuneJobSpec) -> contract.ZeroStage | None:
    stage = spec.memory.zero_stage
    return None if stage == AUTO else contract.ZeroStage(int(stage))


def _tracking(spec: FineTuneJobSpec, namespace: str) -> contract.Tracking | None:
    tracking = spec.tracking
    if tracking is None:
        return None
    return contract.Tracking(
        type=tracking.type, uri=tracking.uri, project=tracking.project or namespace
    )


def _reward_runner(mounts: Mounts) -> contract.RewardRunner | None:
    if mounts.reward_socket is None and not mounts.reward_sources:
        return None
    return contract.RewardRunner(
        socket=mounts.reward_socket, sources=dict(mounts.reward_sources) or None
    )


def _credentials(mounts: Mounts) -> contract.Credentials:
    return contract.Credentials(
        model=mounts.model_credentials,
        data=mounts.data_credentials,
        output=mounts.output_credentials,
        tracking=mounts.tracking_credentials,
        rollout=mounts.rollout_credentials,
        rewards=dict(mounts.reward_credentials) or None,
    )


def recipe(spec: FineTuneJobSpec) -> contract_recipe.Recipe:
    """Return what decides the artifact: every field but those of the layout."""
    return contract_recipe.Recipe(
        model=contract_recipe.ModelRecipe(
            uri=spec.model.uri, revision=spec.model.revision, init_from=spec.model.init_from
        ),
        data=_data(spec),
        method=spec.method.type,
        grpo=grpo_recipe(spec),
        lora=contract_recipe.LoraRecipe(
            rank=spec.lora.rank,
            alpha=spec.lora.alpha,
            dropout=float(spec.lora.dropout),
            targets=tuple(spec.lora.targets),
            rslora=spec.lora.rslora,
            dora=spec.lora.dora,
            quantization=spec.lora.quantization,
        ),
        training=_training(spec),
        eval=contract_recipe.EvalRecipe(
            every_steps=spec.eval.every_steps,
            publish=spec.eval.publish,
            patience=spec.eval.patience,
        ),
        export=tuple(spec.output.export),
    )


def _data(spec: FineTuneJobSpec) -> contract_recipe.DataRecipe:
    return contract_recipe.DataRecipe(
        train=tuple(
            contract_recipe.DataSource(
                uri=source.uri, format=source.format, weight=float(source.weight)
            )
            for source in spec.data.train
        ),
        eval=tuple(
            contract_recipe.DataSource(uri=source.uri, format=source.format)
            for source in spec.data.eval or ()
        ),
        on_bad_row=spec.data.on_bad_row,
    )


def _training(spec: FineTuneJobSpec) -> contract_recipe.TrainingRecipe:
    training = spec.training
    return contract_recipe.TrainingRecipe(
        learning_rate=float(training.learning_rate),
        epochs=training.epochs,
        max_steps=training.max_steps,
        global_batch_size=training.global_batch_size,
        sequence_length=training.sequence_length,
        precision=training.precision,
        schedule=training.schedule,
        warmup_ratio=float(training.warmup_ratio),
        weight_decay=float(training.weight_decay),
        max_grad_norm=float(training.max_grad_norm),
        seed=training.seed,
        deterministic=training.deterministic,
    )
