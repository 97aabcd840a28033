"""The learning rate's course."""

from __future__ import annotations

import pytest

from finetune_contract.recipe import Schedule, TrainingRecipe
from finetune_trainer.step.schedule import learning_rate


def rates(schedule: Schedule, steps: int, warmup_ratio: float = 0.0) -> list[float]:
    recipe = TrainingRecipe(learning_rate=8.0, schedule=schedule, warmup_ratio=warmup_ratio)
    return [learning_rate(recipe, step, steps) for step in range(steps)]


def test_schedules() -> None:
    assert rates(Schedule.CONSTANT, 3) == [8, 8, 8]
    assert rates(Schedule.LINEAR, 4) == [8, 6, 4, 2]
    assert rates(Schedule.COSINE, 2) == pytest.approx([8, 4])


def test_warm_up_rises_to_the_full_rate_and_never_begins_at_zero() -> None:
    assert rates(Schedule.LINEAR, 8, warmup_ratio=0.3) == pytest.approx(
        [2, 4, 6, 8, 6.4, 4.8, 3.2, 1.6]
    )
    assert rates(Schedule.CONSTANT, 3, warmup_ratio=1.0) == pytest.approx([2, 4, 6])
