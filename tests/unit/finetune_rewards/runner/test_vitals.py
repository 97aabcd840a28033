"""How many threads weigh as much as a few."""

from __future__ import annotations

import pytest

from finetune_rewards.runner.vitals import FAIR_THREADS, nice_of

WEIGHTS = (1024, 820, 655, 526, 423, 335, 272, 215, 172, 137, 110, 87, 70, 56, 45, 36, 29, 23, 18)


def test_a_few_keep_their_weight() -> None:
    assert [nice_of(running) for running in range(FAIR_THREADS + 1)] == [0] * (FAIR_THREADS + 1)


@pytest.mark.parametrize("running", [3, 4, 8, 16, 64, 110])
def test_many_weigh_together_no_more_than_those(running: int) -> None:
    """By the weights that the kernel gives to nice values (sched_prio_to_weight)."""
    together = running * WEIGHTS[nice_of(running)]
    assert 0.7 * FAIR_THREADS * 1024 < together <= 1.02 * FAIR_THREADS * 1024


def test_there_is_no_nice_value_beyond_the_last() -> None:
    assert nice_of(10**6) == 19
