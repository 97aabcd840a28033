"""What is told of a buffer and of a step: flat numbers whose names have a group before the slash.

`reward/mean` and `reward/std` are of the totals, `reward/NAME/...` of one reward over the
completions that it scored. A mean or a spread over none is NaN. They are over the completions that
were drawn first: those of groups that dynamic sampling keeps are not what the policy does on
average. Errors and seconds count all that were drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from finetune_contract.progress import Phase, RewardProgress
from finetune_contract.rewards import Reward
from finetune_trainer.methods.grpo.rollouts import Rollouts

TOTAL = "reward/mean"


def buffer_metrics(rollouts: Rollouts, rewards: Sequence[Reward]) -> dict[str, float]:
    """Return the metrics of a buffer's completions."""
    first, spread = rollouts.first or rollouts, rollouts.found.spread
    metrics = {
        TOTAL: _mean(first.found.totals),
        "reward/std": _std(first.found.totals),
        "rollout/tokens_mean": float(first.lengths.mean()),
        "rollout/tokens_max": float(first.lengths.max()),
        "rollout/truncated_share": float(first.truncated.mean()),
        "rollout/zero_variance_share": float(1 - spread.mean()),
        "rollout/replaced_groups": float(rollouts.drawn - len(spread)),
        "rollout/seconds": rollouts.spent[Phase.ROLLOUT],
        "reward/seconds": rollouts.spent[Phase.SCORE],
    }
    for index, reward in enumerate(rewards):
        values, failed = first.scores.values[:, index], first.scores.failed[:, index]
        metrics |= {
            f"reward/{reward.name}/mean": _mean(values),
            f"reward/{reward.name}/std": _std(values),
            f"reward/{reward.name}/errors": float(rollouts.scores.failures[index]),
            f"reward/{reward.name}/abstained": float((np.isnan(values) & ~failed).sum()),
            f"reward/{reward.name}/seconds": float(rollouts.scores.seconds[index]),
        }
    return metrics


def step_metrics(stats: Mapping[str, float]) -> dict[str, float]:
    """Return the means over a step's learned tokens of what the objective has summed."""
    tokens = stats["tokens"]
    if not tokens:
        return {}
    return {f"policy/{name}": value / tokens for name, value in stats.items() if name != "tokens"}


def reward_progress(
    metrics: Mapping[str, float], rewards: Sequence[Reward], errors: Sequence[int]
) -> tuple[RewardProgress, ...]:
    """Return each reward as Progress tells of it; `errors` are of the whole run."""
    return tuple(
        RewardProgress(
            name=reward.name,
            mean=_known(metrics[f"reward/{reward.name}/mean"]),
            std=_known(metrics[f"reward/{reward.name}/std"]),
            seconds=metrics[f"reward/{reward.name}/seconds"],
            errors=failures,
        )
        for reward, failures in zip(rewards, errors, strict=True)
    )


def _known(value: float) -> float | None:
    return None if np.isnan(value) else value


def _mean(values: npt.NDArray[np.float64]) -> float:
    there = values[~np.isnan(values)]
    return float(there.mean()) if len(there) else float("nan")


def _std(values: npt.NDArray[np.float64]) -> float:
    there = values[~np.isnan(values)]
    return float(there.std()) if len(there) else float("nan")
