"""The recipe: all that decides the artifact. Its digest names a training, whatever the layout.

A default never changes: the digest leaves defaults out. Another one is a new field.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field, model_validator

from finetune_contract.grpo import GrpoRecipe
from finetune_contract.model import Message, Terse, sha256_digest


class DataFormat(StrEnum):
    """How a row of JSONL holds a conversation."""

    AUTO = "Auto"
    MESSAGES = "Messages"
    PROMPT_COMPLETION = "PromptCompletion"


class BadRows(StrEnum):
    """What becomes of a row that can not be trained on."""

    FAIL = "Fail"
    SKIP = "Skip"


class LoraTarget(StrEnum):
    """A role that weight matrices play in a transformer."""

    ATTENTION = "Attention"
    MLP = "MLP"
    EXPERTS = "Experts"
    SHARED_EXPERTS = "SharedExperts"
    ROUTER = "Router"
    EMBEDDINGS = "Embeddings"
    HEAD = "Head"


class Quantization(StrEnum):
    """The number format in which the frozen linear layers are stored."""

    NONE = "None"
    NF4 = "NF4"


class Precision(StrEnum):
    """The number format of the base model's weights and of the forward pass."""

    BF16 = "BF16"
    FP16 = "FP16"
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
    GRPO = "GRPO"


class Publish(StrEnum):
    """Which of the run's adapters is published."""

    LAST = "Last"
    BEST = "Best"


class Export(StrEnum):
    """What is published."""

    ADAPTER = "Adapter"
    MERGED = "Merged"


class ModelRecipe(Message):
    """The base model, and the published adapter to go on from, if any."""

    uri: str
    revision: str | None = None
    init_from: str | None = None


class DataSource(Message):
    """One JSONL file. An epoch takes round(weight x rows) of its rows."""

    uri: str
    format: DataFormat = DataFormat.AUTO
    weight: Annotated[float, Field(gt=0)] = 1.0


class DataRecipe(Message):
    """The rows to train and to evaluate on."""

    train: Annotated[tuple[DataSource, ...], Field(min_length=1)]
    eval: tuple[DataSource, ...] = ()
    on_bad_row: BadRows = BadRows.FAIL


class LoraRecipe(Message):
    """LoRA as in arXiv 2106.09685; the update is scaled by alpha / rank.

    With `rslora` by alpha / sqrt(rank) (arXiv 2312.03732); with `dora` magnitude and direction are
    trained apart (arXiv 2402.09353).
    """

    rank: Annotated[int, Field(ge=1)] = 16
    alpha: Annotated[int, Field(ge=1)] = 32
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    targets: Annotated[tuple[LoraTarget, ...], Field(min_length=1)] = (
        LoraTarget.ATTENTION,
        LoraTarget.MLP,
    )
    rslora: bool = False
    dora: bool = False
    quantization: Quantization = Quantization.NONE

    @model_validator(mode="after")
    def _experts_are_plain(self) -> LoraRecipe:
        if LoraTarget.EXPERTS in self.targets and (self.dropout > 0 or self.dora):
            raise ValueError("lora.targets Experts needs dropout 0 and no dora")
        return self

    @model_validator(mode="after")
    def _dora_is_not_quantized(self) -> LoraRecipe:
        if self.dora and self.quantization is not Quantization.NONE:
            raise ValueError("lora.dora needs quantization None")
        return self


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
    deterministic: bool = False

    @model_validator(mode="after")
    def _one_length(self) -> TrainingRecipe:
        if self.epochs is not None and self.max_steps is not None:
            raise ValueError("set epochs or maxSteps, not both")
        return self


class EvalRecipe(Message):
    """When to evaluate and what follows. Without `every_steps` only at the end, if there is data.

    `patience` evaluations in a row without a lower loss end the training; None never does.
    """

    every_steps: Annotated[int, Field(ge=1)] | None = None
    publish: Publish = Publish.LAST
    patience: Annotated[int, Field(ge=1)] | None = None


class Recipe(Terse):
    """What decides the artifact."""

    model: ModelRecipe
    data: DataRecipe
    method: MethodType = MethodType.SFT
    grpo: GrpoRecipe | None = None  # for the method GRPO, and only for it
    lora: LoraRecipe = LoraRecipe()
    training: TrainingRecipe = TrainingRecipe()
    eval: EvalRecipe = EvalRecipe()
    export: Annotated[tuple[Export, ...], Field(min_length=1)] = (Export.ADAPTER,)

    @model_validator(mode="after")
    def _merged_is_not_quantized(self) -> Recipe:
        if Export.MERGED in self.export and self.lora.quantization is not Quantization.NONE:
            raise ValueError(
                "export Merged needs lora.quantization None: the merged weights would be others "
                "than those the adapter was trained on"
            )
        return self

    @model_validator(mode="after")
    def _grpo_fits(self) -> Recipe:
        if (self.method is MethodType.GRPO) != (self.grpo is not None):
            raise ValueError("method GRPO needs grpo, and no other method has it")
        if self.grpo is not None:
            if self.training.global_batch_size % self.grpo.group_size:
                raise ValueError("training.globalBatchSize must be a multiple of groupSize")
            if self.grpo.sampling.max_tokens >= self.training.sequence_length:
                raise ValueError("rollout.maxTokens leaves no room for prompts in sequenceLength")
        return self

    @model_validator(mode="after")
    def _best_needs_eval(self) -> Recipe:
        wants = self.eval.publish is Publish.BEST or self.eval.patience is not None
        if wants and not (self.data.eval and self.eval.every_steps):
            raise ValueError("eval.publish Best and eval.patience need data.eval and everySteps")
        return self

    def digest(self) -> str:
        """Return `sha256:<hex>` of the canonical JSON; a default has no part in it."""
        return sha256_digest(self.to_json().encode())
