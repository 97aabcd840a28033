"""The recipe of GRPO and of what grew out of it: rollouts, rewards, and the loss between them."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from finetune_contract.model import Message
from finetune_contract.rewards import Reward


class GrpoLoss(StrEnum):
    """Which policy-gradient loss.

    `GRPO` arXiv 2402.03300, `DrGRPO` 2503.20783, `DAPO` 2503.14476, `GSPO` 2507.18071, `CISPO`
    2506.13585.
    """

    GRPO = "GRPO"
    DR_GRPO = "DrGRPO"
    DAPO = "DAPO"
    GSPO = "GSPO"
    CISPO = "CISPO"


class ScaleRewards(StrEnum):
    """By whose standard deviation an advantage is divided."""

    GROUP = "Group"
    BATCH = "Batch"
    NONE = "None"


class Aggregate(StrEnum):
    """How several rewards become one advantage.

    `WeightedSum` adds scores, then normalises the sum; `GDPO` (arXiv 2601.05242) normalises each
    reward within its group, adds, and normalises the sum over the batch.
    """

    WEIGHTED_SUM = "WeightedSum"
    GDPO = "GDPO"


# (low, high): the ratio is clipped to 1 - low .. 1 + high; CISPO's high is the cap itself, and it
# has no lower one.
CLIPS: dict[GrpoLoss, tuple[float, float]] = {
    GrpoLoss.GRPO: (0.2, 0.2),
    GrpoLoss.DR_GRPO: (0.2, 0.2),
    GrpoLoss.DAPO: (0.2, 0.28),
    GrpoLoss.GSPO: (3e-4, 4e-4),
    GrpoLoss.CISPO: (0.0, 5.0),
}


class Sampling(Message):
    """How completions are drawn."""

    max_tokens: Annotated[int, Field(ge=1, le=131_072)] = 512
    """Longest completion; prompts may have sequenceLength - maxTokens tokens."""
    temperature: Annotated[float, Field(ge=0, json_schema_extra={"default": "1.0"})] = 1.0
    """Sampling temperature."""
    top_p: Annotated[float, Field(ge=0, json_schema_extra={"default": "1.0"})] = 1.0
    """Draw from the smallest set of tokens with this probability (arXiv 1904.09751)."""
    top_k: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Draw from this many most likely tokens; 0 from all."""
    stop: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=64)], ...], Field(max_length=8)
    ] = ()
    """Texts that end a completion, beside the model's end-of-turn tokens."""


class GrpoTerms(Message):
    """Group-relative policy optimisation (arXiv 2402.03300): several completions of a prompt are
    scored, and those better than their group's mean become more likely."""

    group_size: Annotated[int, Field(ge=2, le=1024)] = 8
    """Completions of each prompt. training.globalBatchSize counts completions and must be a
    multiple."""
    loss: GrpoLoss = GrpoLoss.DAPO
    """`GRPO` (mean over each completion's tokens, then over completions), `DrGRPO` (2503.20783: a
    constant instead of the length, no scaling), `DAPO` (2503.14476: mean over all tokens of the
    step, clip-higher), `GSPO` (2507.18071: ratio and clip per completion), `CISPO` (2506.13585: the
    ratio is capped and gradients of all tokens stay)."""
    clip_low: Annotated[float, Field(ge=0)] | None = None
    """The ratio of new to old probability is clipped below at 1 - clipLow. Default 0.2; GSPO 3e-4,
    whose ratio is a mean over a completion. CISPO has none."""
    clip_high: Annotated[float, Field(ge=0)] | None = None
    """The ratio is clipped above at 1 + clipHigh. Default 0.2; DAPO 0.28, GSPO 4e-4. For CISPO it
    is the cap itself, at least 1; default 5."""
    beta: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the KL divergence from the model that training began with (estimator k3)."""
    scale_rewards: ScaleRewards | None = None
    """Divide advantages by the standard deviation of rewards in the `Group` or the `Batch`, or by
    `None`. Default Group; DrGRPO None. Not with aggregate GDPO, which has a scale of its own."""
    aggregate: Aggregate = Aggregate.WEIGHTED_SUM
    """`WeightedSum` adds the rewards. `GDPO` (arXiv 2601.05242) normalises each within its group
    first, so that one with a small spread still counts."""
    iterations: Annotated[int, Field(ge=1, le=64)] = 1
    """Optimizer steps on the same completions."""
    mask_truncated: bool = False
    """Leave completions that were cut at maxTokens out of the loss."""
    soft_punish_tokens: Annotated[int, Field(ge=0, le=131_072)] = 0
    """Lower the total by up to 1 over this many tokens before maxTokens (arXiv 2503.14476)."""
    max_resamples: Annotated[int, Field(ge=0, le=64)] = 0
    """Dynamic sampling: how many times groups whose completions all score the same are replaced by
    other prompts before a step goes on without them. The cost is logged."""
    nothing_to_learn_steps: Annotated[int, Field(ge=1, le=100_000)] = 20
    """End the job when this many steps in a row had nothing to learn from."""


class GrpoRecipe(GrpoTerms):
    """All of GRPO that decides the adapter."""

    sampling: Sampling = Sampling()
    rewards: Annotated[tuple[Reward, ...], Field(min_length=1)]

    @property
    def clips(self) -> tuple[float, float]:
        """Return (low, high) in effect."""
        low, high = CLIPS[self.loss]
        return (
            low if self.clip_low is None else self.clip_low,
            high if self.clip_high is None else self.clip_high,
        )

    @property
    def scaling(self) -> ScaleRewards:
        """Return the scaling in effect: Dr. GRPO divides by nothing, the others by the group's."""
        if self.scale_rewards is not None:
            return self.scale_rewards
        return ScaleRewards.NONE if self.loss is GrpoLoss.DR_GRPO else ScaleRewards.GROUP
