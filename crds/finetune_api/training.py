"""FineTuneJob.spec: how to train, from the method to the use of memory."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

from finetune_api.grpo import Grpo
from finetune_api.types import (
    ApiModel,
    DecimalString,
    IntOrString,
    bound,
    decimal_is_zero,
    listed,
    rule,
    rules,
)
from finetune_contract.layout import Checkpointing, Offload
from finetune_contract.recipe import (
    LoraTarget,
    MethodType,
    Precision,
    Publish,
    Quantization,
    Schedule,
)

AUTO = "Auto"
_EXPERTS = listed("targets", "Experts")


class Method(ApiModel):
    """What is optimised."""

    type: MethodType = MethodType.SFT
    """`SFT`: supervised fine-tuning on the assistant's turns. `GRPO`: reinforcement learning from
    rewards of your own; rows are prompts, and their other columns are handed to the rewards."""
    grpo: Grpo | None = None
    """Set for type GRPO only."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "has(self.type) && self.type == 'GRPO' ? has(self.grpo) : !has(self.grpo)",
                "type GRPO needs the block grpo, with at least one reward; other types have none",
                ".grpo",
            )
        )
    )


class Lora(ApiModel):
    """The adapter: LoRA (arXiv 2106.09685)."""

    rank: Annotated[int, Field(ge=1, le=1024)] = 16
    """Rank of the update."""
    alpha: Annotated[int, Field(ge=1, le=8192)] = 32
    """The update is scaled by alpha / rank."""
    dropout: DecimalString = "0"
    """Dropout on the adapter's input, at least 0 and below 1. Above 0 the numbers depend on
    workers, microBatchSize and packing too: each process and forward pass draws its own. Dropout of
    the base model itself is always off."""
    targets: Annotated[
        list[LoraTarget],
        Field(min_length=1, max_length=8, json_schema_extra={"x-kubernetes-list-type": "set"}),
    ] = [LoraTarget.ATTENTION, LoraTarget.MLP]  # noqa: RUF012 - copied by pydantic
    """Which weights get an adapter, by the role they play: `Attention` (q, k, v, o, or MLA's
    projections), `MLP` (dense gate, up, down), `Experts` (the routed experts of a mixture),
    `SharedExperts`, `Router`, `Embeddings`, `Head`. A role that the model does not have is refused
    before any weights are downloaded."""
    rslora: bool = False
    """Scale by alpha / sqrt(rank), which keeps high ranks stable (arXiv 2312.03732)."""
    dora: bool = False
    """Train magnitude and direction apart (arXiv 2402.09353); slower."""
    quantization: Quantization = Quantization.NONE
    """`NF4` stores the frozen linear layers in 4 bits (QLoRA, arXiv 2305.14314); experts fused into
    one tensor stay in training.precision."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            bound("dropout", "< 1.0", "dropout must be below 1"),
            rule(
                f"!{_EXPERTS} || {decimal_is_zero('dropout')}",
                "dropout must be 0 with targets Experts: fused experts have no place for it",
                ".dropout",
            ),
            rule(
                f"!{_EXPERTS} || !has(self.dora) || !self.dora",
                "dora can not be used with targets Experts: fused experts have no DoRA",
                ".dora",
            ),
            rule(
                "!has(self.dora) || !self.dora || !has(self.quantization) || "
                "self.quantization == 'None'",
                "dora needs quantization None: weights in 4 bits have no norm that ZeRO can gather",
                ".dora",
            ),
        )
    )


class Training(ApiModel):
    """How to optimise."""

    learning_rate: DecimalString = "2e-4"
    """Peak learning rate, as a string such as "2e-4"."""
    epochs: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Passes over the data. Set epochs or maxSteps; with neither it is one epoch."""
    max_steps: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Optimizer steps, over as many passes as that takes."""
    global_batch_size: Annotated[int, Field(ge=1, le=65536)] = 32
    """Rows per optimizer step over all workers. With fixed data and seed it decides the numbers;
    workers and microBatchSize do not, unless lora.dropout is above 0."""
    micro_batch_size: IntOrString = AUTO
    """Rows per forward pass of one process; gradients are accumulated up to globalBatchSize. `Auto`
    takes the most that memory is estimated to hold, up to 16 rows and 32,768 tokens on a GPU or
    4,096 on a CPU: more gains nothing."""
    sequence_length: Annotated[int, Field(ge=8, le=1_048_576)] = 2048
    """The longest row, in tokens; a longer one is refused by file and line before training. It also
    chooses LongRoPE's factors, and may not exceed a model's table of positions."""
    packing: bool = True
    """Put the rows of a forward pass one after the other instead of padding them to equal length.
    No row sees another; the numbers stay the same, unless lora.dropout is above 0."""
    precision: Precision = Precision.BF16
    """Number format of the base model; the adapter itself is trained in FP32. FP16 (with a dynamic
    loss scale) is for GPUs without BF16."""
    schedule: Schedule = Schedule.COSINE
    """Course of the learning rate after warm-up: `Constant`, `Linear` or `Cosine` to zero."""
    warmup_ratio: DecimalString = "0.03"
    """Share of the steps over which the learning rate rises to its peak, 0 to 1."""
    weight_decay: DecimalString = "0"
    """Decoupled weight decay of AdamW."""
    max_grad_norm: DecimalString = "1.0"
    """Clip the gradient to this global norm; "0" does not clip."""
    seed: Annotated[int, Field(ge=0, le=2_147_483_647)] = 0
    """Seed of the adapter's initial weights, of the order of rows and of dropout."""
    deterministic: bool = False
    """Use deterministic kernels only, so that equal runs on equal machines are equal to the bit.
    Slower on GPUs; an operation that has no such kernel ends the job with DeviceUnsupported and is
    named."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            bound("learningRate", "> 0.0", "learningRate must be above 0"),
            rule(
                "!(has(self.epochs) && has(self.maxSteps))",
                "set epochs or maxSteps, not both",
                ".maxSteps",
            ),
            bound("warmupRatio", "<= 1.0", "warmupRatio must be 0 to 1"),
            rule(
                "!has(self.microBatchSize) || self.microBatchSize == 'Auto' || "
                "(type(self.microBatchSize) == int && self.microBatchSize >= 1 && "
                "self.microBatchSize <= 1024)",
                "microBatchSize must be Auto or a number from 1 to 1024",
                ".microBatchSize",
            ),
        )
    )


class Memory(ApiModel):
    """How to fit the training into memory."""

    zero_stage: IntOrString = AUTO
    """DeepSpeed ZeRO: 0 shards nothing, 1 optimizer state, 2 also gradients, 3 also parameters.
    `Auto` takes the least that is estimated to fit."""
    offload: Annotated[
        list[Offload], Field(max_length=2, json_schema_extra={"x-kubernetes-list-type": "set"})
    ] = []  # noqa: RUF012 - copied by pydantic
    """What to keep in the host's memory: `Optimizer` (needs stage 1 to 3), `Parameters` (needs
    stage 3). Slow; the last resort."""
    gradient_checkpointing: Checkpointing = Checkpointing.AUTO
    """Compute activations again in the backward pass instead of keeping them: about a third slower,
    much less memory. `Auto` does so only where the estimate says it must."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!has(self.zeroStage) || self.zeroStage == 'Auto' || "
                "self.zeroStage in [0, 1, 2, 3]",
                "zeroStage must be Auto, 0, 1, 2 or 3",
                ".zeroStage",
            ),
            rule(
                f"!{listed('offload', 'Parameters')} || !has(self.zeroStage) || "
                "self.zeroStage == 'Auto' || self.zeroStage == 3",
                "offload Parameters needs zeroStage 3 or Auto",
                ".zeroStage",
            ),
            rule(
                f"!{listed('offload', 'Optimizer')} || !has(self.zeroStage) || self.zeroStage != 0",
                "offload Optimizer needs zeroStage 1, 2, 3 or Auto",
                ".zeroStage",
            ),
        )
    )


class Eval(ApiModel):
    """How to evaluate on data.eval: the mean loss over all its supervised tokens."""

    every_steps: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Evaluate each time this many optimizer steps are done; always also after the last."""
    publish: Publish = Publish.LAST
    """`Last` publishes the adapter of the last step, `Best` that of the lowest eval loss."""
    patience: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Stop early after this many evaluations in a row without a lower loss. None never does."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "has(self.everySteps) || !has(self.publish) || self.publish != 'Best'",
                "publish Best needs everySteps",
                ".everySteps",
            ),
            rule(
                "has(self.everySteps) || !has(self.patience)",
                "patience needs everySteps",
                ".everySteps",
            ),
        )
    )
