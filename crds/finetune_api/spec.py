"""FineTuneJob.spec: the whole, and what concerns the run: output, checkpoints, tracking, policy."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from finetune_api.inputs import Data, Model
from finetune_api.training import Eval, Lora, Memory, Method, Training
from finetune_api.types import Rule, SecretRef, http_address, store_address
from finetune_api.workers import GPU, Workers, is_gpu_count
from finetune_contract.layout import CheckpointPolicy, Tracker
from finetune_contract.model import Message, StoreUri
from finetune_contract.recipe import Export

_GPU_LIMIT = f"self.workers.resources.limits['{GPU}']"
# Rows per pass of one process; Auto always divides. Other words are refused beside the field.
_MICRO = (
    "(type(self.training.microBatchSize) == int && self.training.microBatchSize >= 1 ? "
    "int(self.training.microBatchSize) : 1)"
)


@store_address("uri")
@Rule("'Adapter' in self.export", "export must name Adapter; Merged comes beside it", ".export")
class Output(Message):
    """Where the adapter goes."""

    uri: StoreUri
    """A directory of this job alone: `s3://bucket/prefix` or `file:///path`. Readers start from
    `latest.json` in it. The store must honour conditional writes."""
    credentials_secret_ref: SecretRef | None = None
    """Credentials for writing there."""
    export: Annotated[tuple[Export, ...], Field(min_length=1, max_length=2)] = (Export.ADAPTER,)
    """What to publish: `Adapter` (PEFT format) and `Merged`, the base model with the adapter added
    to its weights, in the directory `merged`."""


class Checkpoint(CheckpointPolicy):
    """When the training's state is saved below output.uri; a later attempt goes on from it."""

    every_minutes: Annotated[int, Field(ge=1, le=10_080)] = 10
    """Save when the last checkpoint is this old. Saving runs beside the training."""


@http_address("uri", "http:// or https:// and host")
@Rule("self.type != 'MLflow' || has(self.uri)", "MLflow needs uri", ".uri")
@Rule(
    "self.type != 'TensorBoard' || !has(self.uri)",
    "TensorBoard writes files beside the adapter; remove uri",
    ".uri",
)
@Rule(
    "self.type != 'WandB' || has(self.credentialsSecretRef)",
    "WandB needs credentialsSecretRef, a Secret with the key WANDB_API_KEY",
    ".credentialsSecretRef",
)
@Rule(
    "self.type != 'TensorBoard' || !has(self.credentialsSecretRef)",
    "TensorBoard writes files beside the adapter; remove credentialsSecretRef",
    ".credentialsSecretRef",
)
class Tracking(Tracker):
    """Where curves are sent while the job runs. Losing the tracker never stops the training."""

    project: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    """Experiment (MLflow) or project (WandB); default is the job's namespace."""
    credentials_secret_ref: SecretRef | None = None
    """Credentials for the tracker. Keys: WANDB_API_KEY; MLFLOW_TRACKING_TOKEN, or
    MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."""


class RunPolicy(Message):
    """When to run, to retry and to clean up. These fields may change while the job runs."""

    suspend: bool = False
    """Free the pods and wait. Set back to false, the job goes on with a new attempt."""
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 3
    """Attempts before the job fails. Ends caused by the infrastructure do not count."""
    retries: Annotated[int, Field(ge=0, le=10_000)] = 0
    """Raised after the job has failed, it goes on from its newest checkpoint, with attempts and
    deadline counted anew; `finetune retry NAME` raises it by one."""
    active_deadline_seconds: Annotated[int, Field(ge=1, le=31_536_000)] | None = None
    """Fail the job when its attempts have taken this long together, waiting for nodes included."""
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=31_536_000)] | None = None
    """Delete pods and other children this long after the job finished; the job itself stays."""
    termination_grace_period_seconds: Annotated[int, Field(ge=10, le=3600)] = 120
    """Time for a pod that is told to stop to save a checkpoint before it is killed."""
    stall_timeout_seconds: Annotated[int, Field(ge=30, le=604_800)] | None = None
    """End an attempt that makes no progress for this long, with the stacks of its processes, and
    retry it. Without it the trainer takes half an hour to an hour, and between steps 20 times what
    one takes, at least 10 minutes; status.progress says how long. A change holds from the next
    attempt on."""


@Rule(
    "self.workers.replicas < 1 || "
    f"self.training.globalBatchSize % ({_MICRO} * "
    "self.workers.replicas * (has(self.workers.resources) && "
    "has(self.workers.resources.limits) && "
    f"'{GPU}' in self.workers.resources.limits && {is_gpu_count(_GPU_LIMIT)} ? "
    f"int({_GPU_LIMIT}) : 1)) == 0",
    "training.globalBatchSize must be a multiple of microBatchSize x workers.replicas "
    "x GPUs per worker; raise globalBatchSize or change one of the others",
    ".training.globalBatchSize",
)
@Rule(
    "!has(self.method.grpo) || self.training.globalBatchSize % self.method.grpo.groupSize == 0",
    "training.globalBatchSize counts completions: it must be a multiple of method.grpo.groupSize",
    ".training.globalBatchSize",
)
@Rule(
    "!has(self.method.grpo) || self.method.grpo.rollout.maxTokens < self.training.sequenceLength",
    "method.grpo.rollout.maxTokens must leave room for prompts: raise training.sequenceLength",
    ".training.sequenceLength",
)
@Rule(
    "!has(self.method.grpo) || !has(self.data.eval) || size(self.data.eval) == 0",
    "GRPO is judged by its rewards; remove data.eval",
    ".data.eval",
)
@Rule(
    "!has(self.eval.everySteps) || (has(self.data.eval) && size(self.data.eval) > 0)",
    "eval.everySteps needs rows to evaluate on; set data.eval",
    ".data.eval",
)
@Rule(
    "!('Merged' in self.output.export) || !has(self.lora.quantization) || "
    "self.lora.quantization == 'None'",
    "output.export Merged needs lora.quantization None: the merged weights would be "
    "others than those the adapter was trained on",
    ".output.export",
)
@Rule(
    "!has(self.model.initFrom) || !(self.model.initFrom + '/')"
    ".startsWith(self.output.uri + (self.output.uri.endsWith('/') ? '' : '/'))",
    "model.initFrom lies in this job's own output.uri; publish to another directory",
    ".model.initFrom",
)
class FineTuneJobSpec(Message):
    """What to train, on what, how, and where the adapter goes. Once an attempt has started, only
    runPolicy can change."""

    model: Model
    """The base model."""
    data: Data
    """The data."""
    method: Method = Method()
    """What is optimised."""
    lora: Lora = Lora()
    """The adapter."""
    training: Training = Training()
    """How to optimise."""
    eval: Eval = Eval()
    """How to evaluate."""
    memory: Memory = Memory()
    """How to fit the training into memory."""
    workers: Workers = Workers()
    """The pods that train."""
    checkpoint: Checkpoint = Checkpoint()
    """When to save the training's state."""
    tracking: Tracking | None = None
    """Where to send curves."""
    output: Output
    """Where the adapter goes."""
    run_policy: RunPolicy = RunPolicy()
    """When to run, to retry and to clean up."""
