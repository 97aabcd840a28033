"""Orders that are computed: every row once, and as good as shuffled."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_trainer.batch.order import Permutation


@given(st.integers(1, 3000), st.lists(st.integers(0, 2**40), min_size=1, max_size=3))
def test_every_value_is_there_once(rows: int, key: list[int]) -> None:
    values = Permutation(rows, key)(np.arange(rows))
    assert np.array_equal(np.sort(values), np.arange(rows))


@pytest.mark.parametrize("rows", [15, 16, 17, 63, 64, 65, 127, 128, 129, 2**17, 2**17 + 1])
def test_edges_of_the_domain(rows: int) -> None:
    values = Permutation(rows, [1])(np.arange(rows))
    assert np.array_equal(np.sort(values), np.arange(rows))


@given(st.integers(1, 2**48), st.data())
def test_an_entry_does_not_depend_on_what_else_is_asked(rows: int, data: st.DataObject) -> None:
    entries = np.array(data.draw(st.lists(st.integers(0, rows - 1), min_size=1, max_size=20)))
    permutation = Permutation(rows, [7, 1])
    together = permutation(entries)
    assert [int(permutation(entries[i : i + 1])[0]) for i in range(len(entries))] == list(together)
    assert together.min() >= 0
    assert together.max() < rows


def test_a_value_is_equally_likely_everywhere() -> None:
    """Chi-square of where entry 0, and the distance from entry 0 to 1, fall: 9 degrees each."""
    rows, keys = 100, 1500
    drawn = np.array([Permutation(rows, [key])(np.array([0, 1])) for key in range(keys)])
    expected = keys / 10
    for values in (drawn[:, 0], (drawn[:, 1] - drawn[:, 0]) % rows):
        found = np.bincount(values // 10, minlength=10)
        assert ((found - expected) ** 2 / expected).sum() < 33.7  # passed by chance 9,999 in 10,000


def test_neighbours_part() -> None:
    rows = 100_000
    values = Permutation(rows, [3])(np.arange(rows))
    assert (np.diff(values) == 1).sum() < 10  # 1 expected
    assert (values == np.arange(rows)).sum() < 10  # 1 expected
    for lag in (1, 2, 64, 256, 317, 512):
        assert abs(np.corrcoef(values[:-lag], values[lag:])[0, 1]) < 0.02
    halves = (values[: rows // 2] < rows // 2).sum()
    assert abs(halves - rows / 4) < 5 * np.sqrt(rows / 16)


def test_the_order_is_the_same_for_ever() -> None:
    """A run that goes on under a later version must go on in the same order."""
    assert Permutation(20, [0, 0, 0])(np.arange(20)).tolist() == [
        11,
        16,
        13,
        1,
        4,
        3,
        0,
        5,
        7,
        12,
        9,
        2,
        6,
        10,
        14,
        18,
        17,
        8,
        19,
        15,
    ]
    assert Permutation(10**9, [1, 2])(np.arange(4)).tolist() == [
        985496365,
        442618097,
        409223328,
        40972033,
    ]
