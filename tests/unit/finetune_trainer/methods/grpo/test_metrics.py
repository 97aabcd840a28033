"""What Progress tells of each reward."""

from finetune_contract.progress import RewardProgress
from finetune_contract.rewards import MathReward, Reward
from finetune_trainer.methods.grpo.metrics import reward_progress


def of(name: str, mean: float, std: float, seconds: float) -> dict[str, float]:
    values = {"mean": mean, "std": std, "seconds": seconds}
    return {f"reward/{name}/{key}": value for key, value in values.items()}


def test_each_reward_has_its_own_and_a_mean_of_nothing_is_left_out() -> None:
    metrics = of("a", 0.25, 0.5, 1.5) | of("b", float("nan"), float("nan"), 2.5)
    rewards = [Reward(name=name, math=MathReward()) for name in "ab"]
    assert reward_progress(metrics, rewards, [3, 4]) == (
        RewardProgress(name="a", mean=0.25, std=0.5, seconds=1.5, errors=3),
        RewardProgress(name="b", seconds=2.5, errors=4),
    )
