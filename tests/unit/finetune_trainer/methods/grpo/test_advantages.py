"""Scores -> advantages, against plain arithmetic; what is missing is left out, never made up."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_contract.grpo import GrpoRecipe
from finetune_trainer.methods.grpo.advantages import Advantages, advantages
from support.grpo import oracle as grpo_oracle
from support.grpo.oracle import Rules

LIMIT = 64


def recipe(weights: list[float], gates: list[float | None], size: int, **fields: Any) -> GrpoRecipe:
    rewards = [
        {"name": f"r{index}", "weight": weight, "gate": gate, "regex": {"pattern": "x"}}
        for index, (weight, gate) in enumerate(zip(weights, gates, strict=True))
    ]
    return GrpoRecipe.model_validate(
        {"groupSize": size, "rewards": rewards, "sampling": {"maxTokens": LIMIT}, **fields}
    )


def of(table: list[list[float | None]], made: GrpoRecipe, **more: Any) -> Advantages:
    scores = np.array(table, dtype=np.float64)
    lengths = np.array(more.get("lengths", [1] * len(table)), dtype=np.int64)
    truncated = np.array(more.get("truncated", [False] * len(table)))
    return advantages(scores, lengths, truncated, made)


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[list[float | None]], list[int], Rules]:
    size, groups, rewards = (
        draw(st.integers(2, 5)),
        draw(st.integers(1, 4)),
        draw(st.integers(1, 3)),
    )
    score = st.one_of(
        st.none(),
        st.sampled_from([0.0, 0.5, 1.0]),
        st.integers(-128, 128).map(lambda number: number / 64),
    )
    table = [[draw(score) for _ in range(rewards)] for _ in range(size * groups)]
    weights = [draw(st.sampled_from([0.0, 0.5, 0.7, 1.0, 3.0])) for _ in range(rewards)]
    weights[draw(st.integers(0, rewards - 1))] = 1.0
    gates = [draw(st.sampled_from([None, None, 0.5])) for _ in range(rewards)]
    rules = Rules(
        size=size,
        weights=weights,
        gates=gates,
        scale=draw(st.sampled_from(["Group", "Batch", "None"])),
        aggregate=draw(st.sampled_from(["WeightedSum", "GDPO"])),
        max_tokens=LIMIT,
        punish=draw(st.sampled_from([0, 0, 16])),
    )
    return table, [draw(st.integers(1, LIMIT)) for _ in table], rules


@given(cases())
def test_every_variant_is_the_arithmetic(case: tuple[Any, list[int], Rules]) -> None:
    table, lengths, rules = case
    made = recipe(
        list(rules.weights),
        list(rules.gates),
        rules.size,
        scaleRewards=rules.scale,
        aggregate=rules.aggregate,
        softPunishTokens=rules.punish,
    )
    found = of(table, made, lengths=lengths)
    expected = grpo_oracle.advantages(table, lengths, rules)
    values = [value or 0.0 for value in expected]
    assert found.values.tolist() == pytest.approx(values, abs=1e-6, rel=1e-6)
    assert found.kept.tolist() == [value is not None for value in expected]
    assert np.isnan(found.totals).tolist() == (~found.kept).tolist()
    assert found.spread.tolist() == [any(group) for group in grpo_oracle.groups_of(values, rules)]


def test_a_row_without_scores_moves_neither_baseline_nor_spread() -> None:
    made = recipe([1.0], [None], 4)
    found = of([[1.0], [0.0], [None], [0.5]], made)
    alone = of([[1.0], [0.0], [0.5]], recipe([1.0], [None], 3))
    assert found.kept.tolist() == [True, True, False, True]
    assert found.values[[0, 1, 3]].tolist() == pytest.approx(alone.values.tolist())
    assert found.values[2] == 0


def test_a_missing_reward_changes_no_scale() -> None:
    """One of two equal rewards abstains: the total is that of both."""
    made = recipe([1.0, 3.0], [None, None], 2)
    assert of([[1.0, 1.0], [1.0, None]], made).totals.tolist() == [4.0, 4.0]


def test_a_missed_gate_is_zero_and_an_unknown_gate_leaves_out() -> None:
    made = recipe([1.0, 0.0], [None, 0.5], 3)
    found = of([[1.0, 0.9], [1.0, 0.4], [1.0, None]], made)
    assert found.totals[:2].tolist() == [1.0, 0.0]
    assert np.isnan(found.totals[2])
    assert found.kept.tolist() == [True, True, False]


def test_equal_scores_are_exactly_nothing_to_learn() -> None:
    found = of([[0.1]] * 3 + [[0.1], [0.2], [0.1]], recipe([1.0], [None], 3))
    assert found.values[:3].tolist() == [0, 0, 0]
    assert found.spread.tolist() == [False, True]
    beside_none = of([[0.1]] * 3 + [[None]], recipe([1.0], [None], 4))
    assert (beside_none.values.tolist(), beside_none.spread.tolist()) == ([0.0] * 4, [False])


@pytest.mark.parametrize("aggregate", ["WeightedSum", "GDPO"])
def test_rounding_is_no_spread(aggregate: str) -> None:
    """Renormalised by other weights, equal totals differ in the last digit."""
    made = recipe([1.0, 0.7], [None, None], 4, aggregate=aggregate)
    found = of([[1.0, 1.0], [1.0, None], [None, 1.0], [1.0, 1.0]], made)
    assert len(set(found.totals.tolist())) == 2
    assert (found.values.tolist(), found.spread.tolist()) == ([0.0] * 4, [False])
    for last in ([1e9, 1e9], [None, None]):
        large = of([[1e9, 1e9], [1e9, None], [None, 1e9], last], made)
        assert large.spread.tolist() == [False]


@pytest.mark.parametrize("aggregate", ["WeightedSum", "GDPO"])
def test_small_spreads_count(aggregate: str) -> None:
    found = of([[0.0], [1e-6]], recipe([1.0], [None], 2, aggregate=aggregate))
    assert found.spread.tolist() == [True]


@pytest.mark.parametrize("scale", ["Group", "Batch", "None"])
@pytest.mark.parametrize("aggregate", ["WeightedSum", "GDPO"])
def test_the_baseline_is_the_groups_whatever_the_others_score(aggregate: str, scale: str) -> None:
    """With a score missing, the first group's rewards have a mean, and the second no spread."""
    fields = {"aggregate": aggregate} | ({"scaleRewards": scale} if aggregate != "GDPO" else {})
    made = recipe([1.0, 2.0], [None, None], 4, **fields)
    found = of([[1.0, 1.0], [0.0, 0.0], [1.0, None], [0.0, 1.0], *[[1.0, 1.0]] * 4], made)
    assert found.spread.tolist() == [True, False]
    assert found.values[4:].tolist() == [0.0] * 4
    assert abs(found.values[:4].sum()) <= 1e-12
    assert abs(found.values[0]) > 0.1


def test_rewards_that_cancel_each_other_teach_nothing() -> None:
    made = recipe([1.0, 1.0], [None, None], 3, aggregate="GDPO")
    found = of([[0.1, 0.3], [0.2, 0.2], [0.3, 0.1]], made)
    assert (found.values.tolist(), found.spread.tolist()) == ([0.0] * 3, [False])


@pytest.mark.parametrize("aggregate", ["WeightedSum", "GDPO"])
def test_a_missed_gate_is_never_better_than_what_complies(aggregate: str) -> None:
    made = recipe([1.0, 0.0], [None, 0.5], 4, aggregate=aggregate, softPunishTokens=16)
    scores = [[-1.0, 0.0], [-2.0, 1.0], [-3.0, 1.0], [-1.0, 1.0]]
    negative = of(scores, made)
    assert negative.totals.tolist() == [-3.0, -2.0, -3.0, -1.0]
    assert negative.values[0] == negative.values.min() < 0
    punished = of([[1.0, 0.0], *[[0.5, 1.0]] * 3], made, lengths=[1, 64, 1, 1])
    assert punished.totals.tolist() == [-0.5, -0.5, 0.5, 0.5]
    assert punished.values[0] == punished.values.min() < 0


def test_the_worst_of_another_group_is_no_measure_for_a_gate() -> None:
    made = recipe([1.0, 0.0], [None, 0.5], 2)
    found = of([[1.0, 0.0], [-1.0, 1.0], [1.0, 0.0], [-5.0, 1.0]], made)
    assert found.totals.tolist() == [-1.0, -1.0, -5.0, -5.0]


def test_a_group_of_which_one_is_left_has_nothing_to_learn_from() -> None:
    found = of([[1.0], [None], [None]], recipe([1.0], [None], 3))
    assert (found.values.tolist(), found.spread.tolist()) == ([0, 0, 0], [False])


def test_cut_completions_leave_the_loss_but_not_the_baseline() -> None:
    table, cut = [[1.0], [0.0], [0.0]], [False, True, False]
    masked = of(table, recipe([1.0], [None], 3, maskTruncated=True), truncated=cut)
    plain = of(table, recipe([1.0], [None], 3), truncated=cut)
    assert masked.kept.tolist() == [True, False, True]
    assert masked.values.tolist() == pytest.approx([plain.values[0], 0.0, plain.values[2]])
    nothing = of(table, recipe([1.0], [None], 3, maskTruncated=True), truncated=[True] * 3)
    assert nothing.spread.tolist() == [False]


def test_dr_grpo_divides_by_nothing_and_the_others_by_the_group() -> None:
    table = [[1.0], [0.0], [0.5], [0.5]]
    plain = of(table, recipe([1.0], [None], 4, loss="DrGRPO")).values
    assert plain.tolist() == [0.5, -0.5, 0, 0]
    scaled = of(table, recipe([1.0], [None], 4, loss="GRPO")).values
    assert scaled[0] == pytest.approx(0.5 / (np.std([1, 0, 0.5, 0.5], ddof=1) + 1e-4))


def test_length_is_punished_before_the_limit() -> None:
    made = recipe([1.0], [None], 6, softPunishTokens=16)
    found = of([[1.0]] * 6, made, lengths=[1, 48, 56, 63, 64, 80])
    assert found.totals.tolist() == pytest.approx([1, 1, 0.5, 1 - 15 / 16, 0, 0])
