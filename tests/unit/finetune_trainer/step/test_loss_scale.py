"""FP16's loss scale falls and grows."""

from __future__ import annotations

from finetune_trainer.step.loss_scale import GROWTH_STEPS, LossScale


def test_the_scale_doubles_after_many_steps_without_an_overflow() -> None:
    scale = LossScale(scales=True, value=1024.0, clean_steps=GROWTH_STEPS - 2)
    seen = []
    for _ in range(3):
        scale.stepped()
        seen.append((scale.value, scale.clean_steps))
    assert seen == [(1024.0, GROWTH_STEPS - 1), (2048.0, 0), (2048.0, 1)]


def test_an_overflow_halves_it_and_begins_the_count_again() -> None:
    scale = LossScale(scales=True, value=3.0, clean_steps=GROWTH_STEPS - 1)
    scale.overflowed()
    assert (scale.value, scale.clean_steps) == (1.5, 0)
    scale.overflowed()
    assert scale.value == 1.0


def test_without_fp16_nothing_is_scaled() -> None:
    scale = LossScale.beginning(scales=False)
    scale.clean_steps = GROWTH_STEPS - 1
    scale.stepped()
    assert scale.value == 1.0
