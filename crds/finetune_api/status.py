"""FineTuneJob.status: what the operator has seen and done."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from finetune_api.types import ApiModel
from finetune_contract.progress import Phase
from finetune_contract.recipe import LoraTarget

Timestamp = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


class ConditionType(StrEnum):
    """Condition types; they obey kstatus."""

    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    SUCCEEDED = "Succeeded"
    SUSPENDED = "Suspended"


class Condition(ApiModel):
    """One aspect of the job's state (metav1.Condition)."""

    type: ConditionType
    """What this is about."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    reason: Annotated[str, Field(max_length=64)]
    """One word for why; docs/reasons.md explains each."""
    message: Annotated[str, Field(max_length=8192)] = ""
    """What happened and what to do."""
    observed_generation: int | None = None
    """The generation this was said of."""
    last_transition_time: Timestamp
    """When status last changed."""


class AttemptState(StrEnum):
    """Where an attempt stands."""

    STARTING = "Starting"  # recorded; its objects may not exist yet
    RUNNING = "Running"  # its pods have been seen
    STOPPING = "Stopping"  # it has ended or is being ended; its pods may still exist
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    SUSPENDED = "Suspended"


class Attempt(ApiModel):
    """One run of the training: one PyTorchJob, created once."""

    number: int
    """Counts from 1; the PyTorchJob is `<job>-a<number>`."""
    state: AttemptState
    """Where it stands."""
    generation: int
    """metadata.generation of the job it was planned from."""
    recipe_digest: str
    """Digest of what decides the adapter; attempts with equal digests do the same training."""
    image: str
    """Trainer image."""
    micro_batch_size: int | None = None
    """Rows per forward pass, halved after an attempt that ran out of memory; absent with Auto until
    the trainer has chosen."""
    start_time: Timestamp
    """When it was recorded."""
    running_time: Timestamp | None = None
    """When all its pods ran."""
    end_time: Timestamp | None = None
    """When its end was seen."""
    workload_uid: str | None = None
    """uid of its PyTorchJob. One that vanishes after it stood here ends the attempt."""
    pod_uids: Annotated[
        list[str] | None, Field(json_schema_extra={"x-kubernetes-list-type": "atomic"})
    ] = None
    """The pods it is made of; a missing or replaced one ends it."""
    reason: str | None = None
    """Why it ended."""
    message: str | None = None
    """What happened, in which pod."""
    failed_rank: int | None = None
    """The first process that failed."""
    resumed_step: int | None = None
    """The optimizer step it went on from, if it found a checkpoint."""
    last_step: int | None = None
    """The last optimizer step it is known to have done."""
    lost_steps: int | None = None
    """Steps it did after the last complete checkpoint, which the next attempt does again."""


class RewardCheckState(StrEnum):
    """How far the check of the rewards is."""

    RUNNING = "Running"
    PASSED = "Passed"
    FAILED = "Failed"


class RewardCheckStatus(ApiModel):
    """The trial of builtin and python rewards on a few rows, before the first attempt."""

    state: RewardCheckState
    """How far it is."""
    plan: str
    """Digest of what is tried; a spec that changes it is tried anew."""
    pod_uid: str | None = None
    """uid of the pod `<job>-rewards`, once it was seen."""
    failures: int = 0
    """Pods that ended without a verdict, such as by an eviction."""
    start_time: Timestamp | None = None
    """When it began."""
    end_time: Timestamp | None = None
    """When the last pod's end was seen."""
    message: str | None = None
    """What was found, or how the last pod ended."""


class RewardStatus(ApiModel):
    """One reward over the completions of the last step that it scored."""

    name: str
    """Its name in spec.method.grpo.rewards."""
    mean: str | None = None
    """Mean score."""
    std: str | None = None
    """Standard deviation of the scores."""
    seconds: str | None = None
    """How long scoring them took."""
    errors: int = 0
    """Completions of the whole run that it could not score."""


class ProgressStatus(ApiModel):
    """What the running attempt last reported."""

    attempt: int
    """The attempt that reported."""
    phase: Phase
    """The part of the run that is under way."""
    summary: str
    """Phase and counter in a few words."""
    done: int
    """The phase's counter: bytes in Download and Publish, rows in Prepare and Evaluate, completions
    in Rollout and Score, else steps."""
    total: int | None = None
    """Where the counter ends."""
    step: int | None = None
    """Optimizer steps done, whatever the phase."""
    loss: str | None = None
    """Mean loss per supervised token of the last step."""
    eval_loss: str | None = None
    """Mean loss per supervised token of data.eval, when last evaluated."""
    tokens_per_second: str | None = None
    """Tokens of all workers per second, padding not counted."""
    reward: str | None = None
    """Mean total reward of the last step's completions."""
    rewards: Annotated[
        list[RewardStatus] | None, Field(json_schema_extra={"x-kubernetes-list-type": "atomic"})
    ] = None
    """The rewards one by one."""
    note: str | None = None
    """What the run waits for, or what fails without ending it, such as checkpoints."""
    eta_seconds: int | None = None
    """Seconds left in Train."""
    last_report_time: Timestamp
    """When the trainer last reported."""


class ArtifactStatus(ApiModel):
    """The verified adapter."""

    uri: str
    """Directory of the adapter."""
    digest: str
    """sha256 of its manifest.json."""
    bytes: int
    """Size of its files."""
    attempt: int
    """The attempt that published it."""


class MemoryStatus(ApiModel):
    """Estimated peak per GPU (per process without GPUs), in bytes. A formula, not a measurement."""

    estimate: int
    """All parts together."""
    available: int | None = None
    """What the device has."""
    weights: int
    """The frozen base model, or this process's share of it."""
    adapter: int
    """The trainable weights."""
    gradients: int
    """Their gradients."""
    optimizer: int
    """The optimizer's moments."""
    activations: int
    """What the forward pass keeps for the backward pass."""
    logits: int
    """One chunk of the vocabulary's logits and their gradient."""
    overhead: int
    """Buffers of communication, kernels and the runtime."""


class RoleStatus(ApiModel):
    """The weights of one role in lora.targets."""

    role: LoraTarget
    """The role."""
    found: int
    """Weight matrices of the model that play it."""
    adapted: int
    """Those that got an adapter."""


class CheckpointStatus(ApiModel):
    """The newest complete checkpoint."""

    uri: str
    """Its directory."""
    step: int
    """Optimizer steps done when it was made."""
    attempt: int
    """The attempt that made it."""


class PlanStatus(ApiModel):
    """How the spec was resolved; what is left to the trainer appears once it has started."""

    workers: int
    """Pods."""
    processes: int
    """Training processes over all pods."""
    gpus: int
    """GPUs over all pods."""
    micro_batch_size: int | None = None
    """Rows per forward pass of one process."""
    accumulation_steps: int | None = None
    """Forward passes of one process per optimizer step."""
    zero_stage: int | None = None
    """DeepSpeed ZeRO stage."""
    gradient_checkpointing: bool | None = None
    """Whether activations are computed again in the backward pass."""
    packing: bool | None = None
    """Whether rows are packed."""
    memory: MemoryStatus | None = None
    """Estimated memory."""
    lora: Annotated[
        list[RoleStatus] | None,
        Field(
            json_schema_extra={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["role"],
            }
        ),
    ] = None
    """What the adapter reaches, role by role."""


class FineTuneJobStatus(ApiModel):
    """What the operator has seen and done."""

    observed_generation: int | None = None
    """The generation that this status speaks of."""
    conditions: Annotated[
        list[Condition] | None,
        Field(
            json_schema_extra={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["type"],
            }
        ),
    ] = None
    """Ready, Reconciling, Stalled, Succeeded and Suspended, as kstatus reads them."""
    attempts: Annotated[
        list[Attempt] | None,
        Field(
            json_schema_extra={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["number"],
            }
        ),
    ] = None
    """Every attempt, oldest first; each stands here before its objects are made."""
    reward_check: RewardCheckStatus | None = None
    """The trial of builtin and python rewards; the first attempt starts once it has passed."""
    progress: ProgressStatus | None = None
    """What the running attempt last reported."""
    checkpoint: CheckpointStatus | None = None
    """The newest complete checkpoint; the next attempt goes on from it."""
    artifact: ArtifactStatus | None = None
    """The verified adapter."""
    plan: PlanStatus | None = None
    """How the spec was resolved."""
