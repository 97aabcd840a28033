"""The recipe of GRPO and of what grew out of it: rollouts, rewards, and the loss between them."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field, model_validator

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
    """How completions are drawn. `top_k` 0 and `top_p` 1 cut nothing off."""

    max_tokens: Annotated[int, Field(ge=1)] = 512
    temperature: Annotated[float, Field(gt=0)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=0)] = 0
    stop: tuple[str, ...] = ()


class GrpoRecipe(Message):
    """Group-relative policy optimisation. `training.globalBatchSize` counts completions."""

    group_size: Annotated[int, Field(ge=2)] = 8
    loss: GrpoLoss = GrpoLoss.DAPO
    clip_low: Annotated[float, Field(ge=0)] | None = None  # None: CLIPS
    clip_high: Annotated[float, Field(ge=0)] | None = None
    beta: Annotated[float, Field(ge=0)] = 0.0  # of the KL term (k3); 0: none
    scale_rewards: ScaleRewards | None = None  # None: by the loss
    aggregate: Aggregate = Aggregate.WEIGHTED_SUM
    iterations: Annotated[int, Field(ge=1)] = 1  # optimizer steps on the same completions
    mask_truncated: bool = False  # completions cut at max_tokens leave the loss
    soft_punish_tokens: Annotated[int, Field(ge=0)] = 0  # arXiv 2503.14476, equation 13
    max_resamples: Annotated[int, Field(ge=0)] = 0  # rounds that replace groups without spread
    nothing_to_learn_steps: Annotated[int, Field(ge=1)] = 20
    sampling: Sampling = Sampling()
    rewards: Annotated[tuple[Reward, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _names_differ(self) -> GrpoRecipe:
        names = [reward.name for reward in self.rewards]
        if len(set(names)) != len(names):
            raise ValueError("two rewards have one name")
        return self

    @model_validator(mode="after")
    def _something_counts(self) -> GrpoRecipe:
        if not any(reward.weight for reward in self.rewards):
            raise ValueError("no reward has a weight above 0")
        return self

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
