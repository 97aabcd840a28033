"""FineTuneJob.status: what the operator has seen and done."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from finetune_api.types import ATOMIC, keyed_by
from finetune_contract.checkpoint import CheckpointRef
from finetune_contract.layout import Offload
from finetune_contract.model import Count, Message, Positive
from finetune_contract.progress import Phase
from finetune_contract.resolved import MemoryEstimate, RoleCoverage
from finetune_contract.result import PublishedArtifact


def _rounded(digits: int) -> BeforeValidator:
    """Take a number too, for its decimal with so many digits: the API has no floats."""
    return BeforeValidator(lambda v: f"{v:.{digits}f}" if isinstance(v, float) else v)


_Whole = Annotated[str, _rounded(0)]
_Tenths = Annotated[str, _rounded(1)]
_Decimal = Annotated[str, _rounded(4)]
Timestamp = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


class ConditionType(StrEnum):
    """Condition types; they obey kstatus."""

    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    SUCCEEDED = "Succeeded"
    SUSPENDED = "Suspended"


class Condition(Message):
    """One aspect of the job's state (metav1.Condition)."""

    type: ConditionType
    """What this is about."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    reason: Annotated[str, Field(max_length=64)]
    """One word for why; docs/reasons.md explains each."""
    message: Annotated[str, Field(max_length=8192)] = ""
    """What happened and what to do."""
    observed_generation: Count | None = None
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


class Attempt(Message):
    """One run of the training: one PyTorchJob, created once."""

    number: Count
    """Counts from 1; the PyTorchJob is `<job>-a<number>`."""
    state: AttemptState
    """Where it stands."""
    generation: Count
    """metadata.generation of the job it was planned from."""
    recipe_digest: str
    """Digest of what decides the adapter; attempts with equal digests do the same training."""
    image: str
    """Trainer image."""
    micro_batch_size: Positive | None = None
    """Rows per forward pass, halved after an attempt that ran out of memory; absent with Auto until
    the trainer has chosen."""
    gradient_checkpointing: bool | None = None
    """Whether activations are computed again; turned on after an attempt that ran out of memory
    with microBatchSize 1. Absent with Auto until the trainer has chosen."""
    offload: Annotated[list[Offload] | None, Field(json_schema_extra=ATOMIC)] = None
    """What is kept in the host's memory: the job's own, else all that can be after an attempt that
    ran out of memory with gradient checkpointing."""
    start_time: Timestamp
    """When it was recorded."""
    running_time: Timestamp | None = None
    """When all its pods ran."""
    end_time: Timestamp | None = None
    """When its end was seen."""
    workload_uid: str | None = None
    """uid of its PyTorchJob. One that vanishes after it stood here ends the attempt."""
    pod_uids: Annotated[list[str] | None, Field(json_schema_extra=ATOMIC)] = None
    """The pods it is made of; a missing or replaced one ends it."""
    reason: str | None = None
    """Why it ended."""
    message: str | None = None
    """What happened, in which pod."""
    failed_rank: Count | None = None
    """The first process that failed."""
    resumed_step: Count | None = None
    """The optimizer step it went on from, if it found a checkpoint."""
    last_step: Count | None = None
    """The last optimizer step it is known to have done."""
    lost_steps: Count | None = None
    """Steps it did after the last complete checkpoint, which the next attempt does again."""


class RetryStatus(Message):
    """The last time that a user let the failed job go on."""

    retries: Count
    """runPolicy.retries, as it was followed last; more than this lets a failed job go on."""
    after_attempt: Count = 0
    """Attempts up to this one count no more."""


class RewardCheckState(StrEnum):
    """How far the check of the rewards is."""

    RUNNING = "Running"
    PASSED = "Passed"
    FAILED = "Failed"


class RewardCheckStatus(Message):
    """The trial of builtin and python rewards on a few rows, before the first attempt."""

    state: RewardCheckState
    """How far it is."""
    plan: str
    """Digest of what is tried; a spec that changes it is tried anew."""
    pod_uid: str | None = None
    """uid of the pod `<job>-rewards`, once it was seen."""
    failures: Count = 0
    """Pods that ended without a verdict, such as by an eviction."""
    start_time: Timestamp | None = None
    """When it began."""
    end_time: Timestamp | None = None
    """When the last pod's end was seen."""
    message: str | None = None
    """What was found, or how the last pod ended."""


class RewardStatus(Message):
    """One reward over the completions of the last step that it scored."""

    name: str
    """Its name in spec.method.grpo.rewards."""
    mean: _Decimal | None = None
    """Mean score."""
    std: _Decimal | None = None
    """Standard deviation of the scores."""
    seconds: _Tenths | None = None
    """How long scoring them took."""
    errors: Count = 0
    """Completions of the whole run that it could not score."""


class ProgressStatus(Message):
    """What the running attempt last reported."""

    attempt: Count
    """The attempt that reported."""
    phase: Phase
    """The part of the run that is under way."""
    summary: str
    """Phase and counter in a few words."""
    done: Count
    """The phase's counter: bytes in Download and Publish, rows in Prepare and Evaluate, completions
    in Rollout and Score, else steps."""
    total: Count | None = None
    """Where the counter ends."""
    step: Count | None = None
    """Optimizer steps done, whatever the phase."""
    loss: _Decimal | None = None
    """Mean loss per supervised token of the last step."""
    eval_loss: _Decimal | None = None
    """Mean loss per supervised token of data.eval, when last evaluated."""
    tokens_per_second: _Whole | None = None
    """Tokens of all workers per second, padding not counted."""
    reward: _Decimal | None = None
    """Mean total reward of the last step's completions."""
    rewards: Annotated[list[RewardStatus] | None, Field(json_schema_extra=ATOMIC)] = None
    """The rewards one by one."""
    note: str | None = None
    """What the run waits for, or what fails without ending it, such as checkpoints."""
    eta_seconds: Count | None = None
    """Seconds left in Train."""
    stall_timeout_seconds: Count | None = None
    """After so many seconds without any progress the attempt has stalled."""
    last_report_time: Timestamp
    """When the trainer last reported."""


class ArtifactStatus(PublishedArtifact):
    """The verified adapter."""

    attempt: Count
    """The attempt that published it."""


class _Sum(Message):
    estimate: Count
    """All parts together."""


class MemoryStatus(MemoryEstimate, _Sum):  # so that the sum stands before its parts
    """Estimated peak per GPU (per process without GPUs), in bytes. A formula, not a measurement."""


class PlanStatus(Message):
    """How the spec was resolved; what is left to the trainer appears once it has started."""

    workers: Count
    """Pods."""
    processes: Count
    """Training processes over all pods."""
    gpus: Count
    """GPUs over all pods."""
    micro_batch_size: Positive | None = None
    """Rows per forward pass of one process."""
    accumulation_steps: Count | None = None
    """Forward passes of one process per optimizer step."""
    zero_stage: Count | None = None
    """DeepSpeed ZeRO stage."""
    gradient_checkpointing: bool | None = None
    """Whether activations are computed again in the backward pass."""
    offload: Annotated[list[Offload] | None, Field(json_schema_extra=ATOMIC)] = None
    """What is kept in the host's memory; absent if nothing is."""
    packing: bool | None = None
    """Whether rows are packed."""
    memory: MemoryStatus | None = None
    """Estimated memory."""
    lora: Annotated[list[RoleCoverage] | None, Field(json_schema_extra=keyed_by("role"))] = None
    """What the adapter reaches, role by role."""
    advice: Annotated[list[str] | None, Field(json_schema_extra=ATOMIC)] = None
    """What will keep the adapter from working well, and what to change."""


class FineTuneJobStatus(Message):
    """What the operator has seen and done."""

    observed_generation: Count | None = None
    """The generation that this status speaks of."""
    conditions: Annotated[list[Condition] | None, Field(json_schema_extra=keyed_by("type"))] = None
    """Ready, Reconciling, Stalled, Succeeded and Suspended, as kstatus reads them."""
    attempts: Annotated[list[Attempt] | None, Field(json_schema_extra=keyed_by("number"))] = None
    """Every attempt, oldest first; each stands here before its objects are made."""
    retry: RetryStatus | None = None
    """The last time that a user let the failed job go on."""
    reward_check: RewardCheckStatus | None = None
    """The trial of builtin and python rewards; the first attempt starts once it has passed."""
    progress: ProgressStatus | None = None
    """What the running attempt last reported."""
    checkpoint: CheckpointRef | None = None
    """The newest complete checkpoint; the next attempt goes on from it."""
    artifact: ArtifactStatus | None = None
    """The verified adapter."""
    plan: PlanStatus | None = None
    """How the spec was resolved."""
