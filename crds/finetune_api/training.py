"""FineTuneJob.spec: how to train, from the method to the use of memory."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from finetune_api.grpo import Grpo
from finetune_api.types import (
    IntOrString,
    Rule,
    after,
    bound,
    decimal_is_zero,
    listed,
)
from finetune_contract.layout import Checkpointing, Offload
from finetune_contract.model import Message
from finetune_contract.recipe import EvalRecipe, LoraRecipe, MethodType, TrainingTerms

AUTO = "Auto"
_EXPERTS = listed("targets", "Experts")


@Rule(
    "has(self.type) && self.type == 'GRPO' ? has(self.grpo) : !has(self.grpo)",
    "type GRPO needs the block grpo, with at least one reward; other types have none",
    ".grpo",
)
class Method(Message):
    """What is optimised."""

    type: MethodType = MethodType.SFT
    """`SFT`: supervised fine-tuning on the assistant's turns. `GRPO`: reinforcement learning from
    rewards of your own; rows are prompts, and their other columns are handed to the rewards."""
    grpo: Grpo | None = None
    """Set for type GRPO only."""


@bound("dropout", "< 1.0", "dropout must be below 1")
@Rule(
    f"!{_EXPERTS} || {decimal_is_zero('dropout')}",
    "dropout must be 0 with targets Experts: fused experts have no place for it",
    ".dropout",
)
@Rule(
    f"!{_EXPERTS} || !has(self.dora) || !self.dora",
    "dora can not be used with targets Experts: fused experts have no DoRA",
    ".dora",
)
@Rule(
    "!has(self.dora) || !self.dora || !has(self.quantization) || self.quantization == 'None'",
    "dora needs quantization None: weights in 4 bits have no norm that ZeRO can gather",
    ".dora",
)
class Lora(LoraRecipe):
    """The adapter: LoRA (arXiv 2106.09685)."""


@bound("learningRate", "> 0.0", "learningRate must be above 0")
@Rule("!(has(self.epochs) && has(self.maxSteps))", "set epochs or maxSteps, not both", ".maxSteps")
@bound("warmupRatio", "<= 1.0", "warmupRatio must be 0 to 1")
@Rule(
    "!has(self.microBatchSize) || self.microBatchSize == 'Auto' || "
    "(type(self.microBatchSize) == int && self.microBatchSize >= 1 && "
    "self.microBatchSize <= 1024)",
    "microBatchSize must be Auto or a number from 1 to 1024",
    ".microBatchSize",
)
class Training(TrainingTerms):
    """How to optimise, and in how many rows at a time."""

    micro_batch_size: Annotated[IntOrString, Field(json_schema_extra=after("globalBatchSize"))] = (
        AUTO
    )
    """Rows per forward pass of one process; gradients are accumulated up to globalBatchSize. `Auto`
    takes the most that memory is estimated to hold, up to 16 rows and 32,768 tokens on a GPU or
    4,096 on a CPU: more gains nothing."""
    packing: Annotated[bool, Field(json_schema_extra=after("sequenceLength"))] = True
    """Put the rows of a forward pass one after the other instead of padding them to equal length.
    No row sees another; the numbers stay the same, unless lora.dropout is above 0."""


@Rule(
    "!has(self.zeroStage) || self.zeroStage == 'Auto' || self.zeroStage in [0, 1, 2, 3]",
    "zeroStage must be Auto, 0, 1, 2 or 3",
    ".zeroStage",
)
@Rule(
    f"!{listed('offload', 'Parameters')} || !has(self.zeroStage) || "
    "self.zeroStage == 'Auto' || self.zeroStage == 3",
    "offload Parameters needs zeroStage 3 or Auto",
    ".zeroStage",
)
@Rule(
    f"!{listed('offload', 'Optimizer')} || !has(self.zeroStage) || self.zeroStage != 0",
    "offload Optimizer needs zeroStage 1, 2, 3 or Auto",
    ".zeroStage",
)
class Memory(Message):
    """How to fit the training into memory."""

    zero_stage: IntOrString = AUTO
    """DeepSpeed ZeRO: 0 shards nothing, 1 optimizer state, 2 also gradients, 3 also parameters.
    `Auto` takes the least that is estimated to fit."""
    offload: Annotated[tuple[Offload, ...], Field(max_length=2)] = ()
    """What to keep in the host's memory: `Optimizer` (needs stage 1 to 3), `Parameters` (needs
    stage 3). Slow; the last resort."""
    gradient_checkpointing: Checkpointing = Checkpointing.AUTO
    """Compute activations again in the backward pass instead of keeping them: about a third slower,
    much less memory. `Auto` does so only where the estimate says it must."""


@Rule(
    "has(self.everySteps) || !has(self.publish) || self.publish != 'Best'",
    "publish Best needs everySteps",
    ".everySteps",
)
@Rule("has(self.everySteps) || !has(self.patience)", "patience needs everySteps", ".everySteps")
class Eval(EvalRecipe):
    """How to evaluate on data.eval: the mean loss over all its supervised tokens."""
