"""FineTuneJob -> RunConfig: what the trainer is told, in a pod or on this machine."""

from __future__ import annotations

from dataclasses import dataclass

from finetune_api.job import FineTuneJob
from finetune_api.spec import FineTuneJobSpec
from finetune_contract import runconfig as contract
from finetune_operator.plan.names import attempt_name


@dataclass(frozen=True)
class Mounts:
    """Directories that the trainer finds ready; None where there is none."""

    model_credentials: str | None = None
    data_credentials: str | None = None
    output_credentials: str | None = None
    cache: str | None = None
    scratch: str = "/tmp/finetune"  # noqa: S108 - private to the container


def run_config(
    job: FineTuneJob,
    *,
    attempt: int,
    uid: str,
    image: str,
    micro_batch_size: int,
    heartbeat_seconds: float | None,
    mounts: Mounts,
) -> contract.RunConfig:
    """Return the RunConfig of one attempt.

    `uid` is metadata.uid, or the run id without a cluster; `heartbeat_seconds` is None where no
    Lease is to be renewed. Raises pydantic's ValidationError if the batches do not fit together.
    """
    heartbeat = heartbeat_seconds and contract.Heartbeat(
        lease=attempt_name(job.name, attempt), interval_seconds=heartbeat_seconds
    )
    return contract.RunConfig(
        version=contract.VERSION,
        recipe=recipe(job.spec),
        layout=contract.Layout(
            job=contract.JobRef(
                name=job.name, namespace=job.metadata.get("namespace", "default"), uid=uid
            ),
            attempt=attempt,
            image=image,
            output_uri=job.spec.output.uri,
            workers=job.spec.workers.replicas,
            processes_per_worker=job.spec.workers.processes_per_worker,
            micro_batch_size=micro_batch_size,
            zero_stage=contract.ZeroStage(int(job.spec.memory.zero_stage)),
            credentials=contract.Credentials(
                model=mounts.model_credentials,
                data=mounts.data_credentials,
                output=mounts.output_credentials,
            ),
            cache_dir=mounts.cache,
            scratch_dir=mounts.scratch,
            heartbeat=heartbeat or None,
        ),
    )


def recipe(spec: FineTuneJobSpec) -> contract.Recipe:
    """Return what decides the adapter: every field but those of the layout."""
    training = spec.training
    return contract.Recipe(
        model=contract.ModelRecipe(uri=spec.model.uri, revision=spec.model.revision),
        data=contract.DataRecipe(
            train=tuple(
                contract.DataSource(uri=source.uri, format=source.format)
                for source in spec.data.train
            )
        ),
        method=spec.method.type,
        lora=contract.LoraRecipe(
            rank=spec.lora.rank,
            alpha=spec.lora.alpha,
            dropout=float(spec.lora.dropout),
            targets=tuple(spec.lora.targets),
        ),
        training=contract.TrainingRecipe(
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
        ),
    )
