"""The prompts of buffers, and those that replace them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from finetune_trainer.methods.grpo.prompt_order import PromptOrder
from support.grpo.stand_ins import numbered_prompts, rolled_config


def order(directory: Path, rows: int = 10, *, training: Any = None, **grpo: Any) -> PromptOrder:
    """Return a order with groups of 4, of which 4 make a buffer."""
    recipe = rolled_config(directory, training=training, **grpo).recipe
    return PromptOrder.of(recipe, numbered_prompts(rows).data)


def test_an_epoch_takes_each_prompt_once_and_iterations_reuse_buffers(tmp_path: Path) -> None:
    made = order(tmp_path, training={"epochs": 2}, iterations=3)
    assert made.steps == 15  # 20 prompts, 4 to a buffer, 3 steps on each
    seen = np.concatenate([made.rows(buffer) for buffer in range(5)])
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
    assert len(made.rows(5)) == 0


def test_every_step_has_a_full_buffer_where_steps_are_given(tmp_path: Path) -> None:
    for steps, buffers in ((6, 2), (7, 3), (9, 3)):
        made = order(tmp_path, training={"maxSteps": steps}, iterations=3)
        assert made.steps == steps
        assert [len(made.rows(buffer)) for buffer in range(buffers + 1)] == [4] * buffers + [0]


def test_replacements_are_rows_that_are_not_there_yet_as_far_as_there_are(tmp_path: Path) -> None:
    made = order(tmp_path, maxResamples=3)
    for buffer in range(8):
        taken = made.rows(buffer)[:2]
        for attempt in (1, 2, 3):
            whole = made.replacements(buffer, attempt, 4, taken)
            repeated = np.isin(whole, taken).tolist()
            assert len(whole) == 4
            assert repeated == sorted(repeated), "they come last"
            for count in range(4):
                fewer = made.replacements(buffer, attempt, count, taken)
                assert fewer.tolist() == whole[:count].tolist()


def test_each_round_takes_other_rows(tmp_path: Path) -> None:
    """Rounds and buffers go through all prompts before one comes again."""
    made = order(tmp_path, 40, maxResamples=2)
    none = np.zeros(0, dtype=np.int64)
    rounds = [(buffer, attempt) for buffer in range(5) for attempt in (1, 2)]
    seen = np.concatenate([made.replacements(*at, 4, none) for at in rounds])
    assert sorted(seen) == list(range(40))


def test_what_is_not_taken_stays_in_its_order(tmp_path: Path) -> None:
    made = order(tmp_path, 600, training={"globalBatchSize": 4 * 300}, maxResamples=1)
    none = np.zeros(0, dtype=np.int64)
    whole = made.replacements(0, 1, 300, none)
    some = made.replacements(0, 1, 300, whole[::3])
    assert some.tolist() == [*np.delete(whole, np.s_[::3]).tolist(), *whole[::3].tolist()]


def test_replacements_do_not_come_in_the_order_of_an_epoch(tmp_path: Path) -> None:
    made = order(tmp_path, 40, training={"epochs": 3}, maxResamples=1)
    none = np.zeros(0, dtype=np.int64)
    again = [made.replacements(buffer, 1, 4, none).tolist() for buffer in range(30)]
    assert again != [made.rows(buffer).tolist() for buffer in range(30)]
