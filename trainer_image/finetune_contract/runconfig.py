"""RunConfig: all that the trainer is told, as one versioned JSON document.

A *recipe* decides the adapter; a *layout* decides only where and how fast it is made. The digest is
the recipe's, so that an attempt with another layout is still the same training.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Annotated, Literal

from pydantic import Field, model_validator

from finetune_contract.model import Message, canonical_json, sha256_digest

VERSION: Literal["finetune.dev/runconfig/v1alpha1"] = "finetune.dev/runconfig/v1alpha1"
FILE_NAME = "runconfig.json"


class DataFormat(StrEnum):
    """How a row of JSONL holds a conversation."""

    AUTO = "Auto"
    MESSAGES = "Messages"
    PROMPT_COMPLETION = "PromptCompletion"


class LoraTarget(StrEnum):
    """A role that linear layers play in a transformer."""

    ATTENTION = "Attention"
    MLP = "MLP"


class Precision(StrEnum):
    """The number format of the base model's weights and of the forward pass."""

    BF16 = "BF16"
    FP32 = "FP32"


class Schedule(StrEnum):
    """The learning rate's course after warm-up."""

    CONSTANT = "Constant"
    LINEAR = "Linear"
    COSINE = "Cosine"


class Optimizer(StrEnum):
    """The update rule."""

    ADAMW = "AdamW"
    SGD = "SGD"


class MethodType(StrEnum):
    """What is optimised."""

    SFT = "SFT"


class ZeroStage(IntEnum):
    """What DeepSpeed ZeRO shards: nothing, optimizer state, gradients too, parameters too."""

    DDP = 0
    OPTIMIZER = 1
    GRADIENTS = 2
    PARAMETERS = 3


class ModelRecipe(Message):
    """The base model."""

    uri: str
    revision: str | None = None


class DataSource(Message):
    """One JSONL file."""

    uri: str
    format: DataFormat = DataFormat.AUTO


class DataRecipe(Message):
    """The rows to train on, in this order."""

    train: Annotated[tuple[DataSource, ...], Field(min_length=1)]


class LoraRecipe(Message):
    """LoRA as in arXiv 2106.09685; the update is scaled by alpha / rank."""

    rank: Annotated[int, Field(ge=1)] = 16
    alpha: Annotated[int, Field(ge=1)] = 32
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    targets: Annotated[tuple[LoraTarget, ...], Field(min_length=1)] = (
        LoraTarget.ATTENTION,
        LoraTarget.MLP,
    )


class TrainingRecipe(Message):
    """Optimisation. One of `epochs` and `max_steps` is set; neither means one epoch."""

    learning_rate: Annotated[float, Field(gt=0)] = 2e-4
    epochs: Annotated[int, Field(ge=1)] | None = None
    max_steps: Annotated[int, Field(ge=1)] | None = None
    global_batch_size: Annotated[int, Field(ge=1)] = 32
    sequence_length: Annotated[int, Field(ge=8)] = 2048
    precision: Precision = Precision.BF16
    optimizer: Optimizer = Optimizer.ADAMW
    schedule: Schedule = Schedule.COSINE
    warmup_ratio: Annotated[float, Field(ge=0, le=1)] = 0.03
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: Annotated[float, Field(ge=0)] = 1.0  # 0: no clipping
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _one_length(self) -> TrainingRecipe:
        if self.epochs is not None and self.max_steps is not None:
            raise ValueError("set epochs or maxSteps, not both")
        return self


class Recipe(Message):
    """What decides the adapter."""

    model: ModelRecipe
    data: DataRecipe
    method: MethodType = MethodType.SFT
    lora: LoraRecipe = LoraRecipe()
    training: TrainingRecipe = TrainingRecipe()

    def digest(self) -> str:
        """Return `sha256:<hex>` of the canonical JSON."""
        fields = self.model_dump(mode="json", by_alias=True)
        return sha256_digest(canonical_json(fields).encode())


class JobRef(Message):
    """The job an attempt belongs to. For `finetune run` the uid is the run id."""

    name: str
    namespace: str
    uid: str


class Credentials(Message):
    """Directories with one file per key; None means the ambient identity."""

    model: str | None = None
    data: str | None = None
    output: str | None = None


class Heartbeat(Message):
    """Where rank 0 reports progress: a Lease in the job's namespace."""

    lease: str
    interval_seconds: Annotated[float, Field(gt=0)] = 15.0


class Layout(Message):
    """Where and how an attempt runs; none of it changes the adapter."""

    job: JobRef
    attempt: Annotated[int, Field(ge=1)]
    image: str
    output_uri: str
    workers: Annotated[int, Field(ge=1)] = 1
    processes_per_worker: Annotated[int, Field(ge=1)] = 1
    micro_batch_size: Annotated[int, Field(ge=1)] = 1
    zero_stage: ZeroStage = ZeroStage.GRADIENTS
    credentials: Credentials = Credentials()
    cache_dir: str | None = None  # a directory that outlives the pod and is shared by the node
    scratch_dir: str = "/tmp/finetune"  # noqa: S108 - private to the container
    heartbeat: Heartbeat | None = None

    @property
    def world_size(self) -> int:
        """Return the number of training processes."""
        return self.workers * self.processes_per_worker


class RunConfig(Message):
    """The whole document."""

    version: Literal["finetune.dev/runconfig/v1alpha1"]
    recipe: Recipe
    layout: Layout

    @model_validator(mode="after")
    def _batches_fit(self) -> RunConfig:
        per_pass = self.layout.micro_batch_size * self.layout.world_size
        if self.recipe.training.global_batch_size % per_pass:
            raise ValueError(
                f"globalBatchSize {self.recipe.training.global_batch_size} is not a multiple of "
                f"microBatchSize x processes = {per_pass}"
            )
        return self

    @property
    def accumulation_steps(self) -> int:
        """Return the number of micro-batches that each process adds up to one optimizer step."""
        per_pass = self.layout.micro_batch_size * self.layout.world_size
        return self.recipe.training.global_batch_size // per_pass
