"""Totals: scores that are missing are never zeros."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_contract.rewards import Reward
from finetune_rewards.scores.totals import missed_gates, totals

NAN = float("nan")


def rewards(*settings: dict[str, Any]) -> list[Reward]:
    return [
        Reward.model_validate({"name": f"r{index}", "regex": {"pattern": "a"}, **setting})
        for index, setting in enumerate(settings)
    ]


def one(scores: list[float], *settings: dict[str, Any]) -> float:
    [total] = of([scores], *settings)
    return total


def of(
    scores: list[list[float]], *settings: dict[str, Any], groups: list[int] | None = None
) -> list[float]:
    """Return the totals of completions, of one prompt unless told."""
    numbers = groups or [7] * len(scores)
    found: list[float] = totals(np.array(scores), rewards(*settings), numbers).tolist()
    return found


def test_weights_of_the_present_are_scaled_up() -> None:
    weights = ({"weight": 1}, {"weight": 3})
    assert one([1, 0.5], *weights) == 2.5
    assert one([1, NAN], *weights) == 4.0
    assert one([NAN, 0.5], *weights) == 2.0
    assert np.isnan(one([NAN, NAN], *weights))


def test_a_reward_without_weight_scores_nothing_alone() -> None:
    weights = ({"weight": 0}, {"weight": 2})
    assert one([7, 1], *weights) == 2.0
    assert np.isnan(one([7, NAN], *weights))


@pytest.mark.parametrize(
    ("scores", "total"),
    [
        ([1, 1], 2.0),
        ([1, 0.5], 1.5),
        ([1, 0.4], 0.0),
        ([-1, 0.4], 0.0),
        ([1, NAN], NAN),
        ([NAN, 0.4], 0.0),
        ([NAN, 0.5], 1.0),
    ],
)
def test_a_gate_zeroes_below_and_leaves_out_the_unknown(scores: list[float], total: float) -> None:
    assert one(scores, {}, {"gate": 0.5}) == pytest.approx(total, nan_ok=True)


@pytest.mark.parametrize(
    ("scores", "total"),
    [
        ([0, 1], 0.0),
        ([1, 0], 0.0),
        ([NAN, 0], 0.0),  # whatever the first says, the second forbids it
        ([0, NAN], 0.0),
        ([NAN, 1], NAN),
        ([1, NAN], NAN),
        ([1, 1], 2.0),
    ],
)
def test_each_of_several_gates_counts(scores: list[float], total: float) -> None:
    assert one(scores, {"gate": 0.5}, {"gate": 0.5}) == pytest.approx(total, nan_ok=True)


def test_a_gate_may_have_no_weight() -> None:
    assert one([0.7, 1], {}, {"gate": 1, "weight": 0}) == 0.7
    assert one([0.7, 0], {}, {"gate": 1, "weight": 0}) == 0.0
    assert np.isnan(one([NAN, 1], {}, {"gate": 1, "weight": 0}))


def test_a_missed_gate_is_as_bad_as_the_worst_that_passes() -> None:
    gate = ({}, {"gate": 0.5, "weight": 0})
    assert of([[-1, 0], [-2, 1], [-3, 1]], *gate) == [-3, -2, -3]
    assert of([[5, 0], [2, 1], [3, 1]], *gate) == [0, 2, 3]
    assert of([[-5, 0], [-4, 0]], *gate) == [0, 0]  # none passes
    assert of([[-1, 0], [NAN, 1], [-3, NAN]], *gate)[0] == 0  # of none that passes is it known


def test_gates_look_at_their_own_group() -> None:
    gate = ({}, {"gate": 0.5, "weight": 0})
    scores = [[-9, 1], [-1, 0], [-2, 1], [-1, 0]]
    assert of(scores, *gate, groups=[30, 2, 2, 30]) == [-9, -2, -2, -9]


def test_the_worst_that_passes_may_stand_anywhere_in_its_group() -> None:
    gate = ({}, {"gate": 0.5, "weight": 0})
    assert of([[-1, 0], [-3, 1], [-2, 1]], *gate)[0] == -3


def test_a_gate_may_stand_at_zero() -> None:
    assert one([5, -1], {}, {"gate": 0, "weight": 0}) == 0.0
    assert one([5, 0], {}, {"gate": 0, "weight": 0}) == 5.0


def test_a_gate_that_is_missed_decides_whatever_another_does_not_know() -> None:
    gates = ({"gate": 0.5, "weight": 0}, {"gate": 0.5, "weight": 0})
    assert one([5, 0, NAN], {}, *gates) == one([5, NAN, 0], {}, *gates) == 0.0
    assert np.isnan(one([5, 1, NAN], {}, *gates))
    missed, unknown = missed_gates(np.array([[0, NAN], [1, NAN]]), rewards(*gates))
    assert (missed.tolist(), unknown.tolist()) == ([True, False], [False, True])


def test_what_is_added_counts_before_the_gates() -> None:
    judged = rewards({}, {"gate": 0.5, "weight": 0})
    scores, added = np.array([[2.0, 1], [2, 1], [9, 0]]), np.array([0.5, -4, 7])
    assert totals(scores, judged, [1, 1, 1], added).tolist() == [2.5, -2.0, -2.0]


def test_scores_that_are_missing_are_no_arithmetic_fault() -> None:
    with np.errstate(all="raise"):
        assert np.isnan(one([NAN, NAN], {}, {"weight": 2}))
        assert np.isnan(one([NAN, 1], {}, {"weight": 0}))
        assert np.isnan(one([1], {"weight": 0}))


def test_no_completions_have_no_totals() -> None:
    assert totals(np.zeros((0, 1)), rewards({}), []).tolist() == []


finite = st.floats(-100, 100)
rows = st.lists(
    st.tuples(finite | st.just(NAN), finite | st.just(NAN), finite | st.just(NAN)),
    min_size=1,
    max_size=6,
)
weights = st.tuples(*[st.floats(0.125, 8)] * 3)


@given(rows=rows, weights=weights)
def test_a_total_is_the_mean_of_what_is_there_times_all_weights(
    rows: list[tuple[float, ...]], weights: tuple[float, ...]
) -> None:
    found = of([list(row) for row in rows], *({"weight": weight} for weight in weights))
    for row, total in zip(rows, found, strict=True):
        there = [(w, s) for w, s in zip(weights, row, strict=True) if not np.isnan(s)]
        if not there:
            assert np.isnan(total)
            continue
        mean = sum(w * s for w, s in there) / sum(w for w, _ in there)
        assert total == pytest.approx(mean * sum(weights), rel=1e-9, abs=1e-9)
        scores = [s for _, s in there]
        assert min(scores) - 1e-9 <= total / sum(weights) <= max(scores) + 1e-9


@given(scores=st.lists(finite, min_size=3, max_size=3), weights=weights, lost=st.integers(0, 2))
def test_losing_an_equal_score_changes_nothing(
    scores: list[float], weights: tuple[float, ...], lost: int
) -> None:
    """So an error is not taken for 0, nor for anything else."""
    judged = [{"weight": weight} for weight in weights]
    same = [scores[0]] * 3
    missing = [NAN if index == lost else score for index, score in enumerate(same)]
    assert one(missing, *judged) == pytest.approx(one(same, *judged), rel=1e-9, abs=1e-9)
