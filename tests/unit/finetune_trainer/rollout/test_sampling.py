"""Tokens are drawn from the distribution asked for, and by their own noise alone."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from finetune_contract.grpo import Sampling
from finetune_trainer.rollout import sampling as module
from finetune_trainer.rollout.sampling import (
    draw_tokens,
    probabilities,
    sample_seed,
    uniform_noise,
)
from support.trainer.tensor_sizes import LargestTensor

ALMOST_ONE = 1 - 2**-53  # the largest number a generator gives
# 99.99% of chi-square with these degrees of freedom.
CHI_SQUARE = {2: 18.42, 4: 23.51, 11: 37.37}


def logits_of(weights: list[float]) -> torch.Tensor:
    return torch.tensor([weights]).double().log()


def repeated(logits: torch.Tensor, noise: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    return draw_tokens(logits.expand(len(noise), -1), noise, sampling)


@pytest.mark.parametrize(
    ("sampling", "kept"),
    [
        (Sampling(), 12),
        (Sampling(temperature=0.5), 12),
        (Sampling(top_k=5), 5),
        (Sampling(temperature=2.0, top_p=0.3), 3),
    ],
)
def test_tokens_follow_the_distribution(sampling: Sampling, kept: int) -> None:
    logits = torch.linspace(-1.5, 1.5, 12)[torch.randperm(12, generator=_generator())][None]
    scaled = (logits[0].double() / sampling.temperature).softmax(0)
    cut = scaled.sort(descending=True).values[kept - 1]
    exact = torch.where(scaled >= cut, scaled, 0.0)
    exact /= exact.sum()
    count = 40_000
    noise = torch.from_numpy(uniform_noise(0, (1,), 0, count))
    found = repeated(logits, noise, sampling).bincount(minlength=12)
    assert found[exact == 0].sum() == 0
    expected = (count * exact)[exact > 0]
    statistic = ((found[exact > 0] - expected) ** 2 / expected).sum()
    assert statistic < CHI_SQUARE[kept - 1]


@pytest.mark.parametrize("size", [3, 511, 512, 513, 1500])
def test_a_token_is_where_the_running_sum_passes_the_noise(size: int) -> None:
    logits = torch.randn(1, size, generator=_generator())
    noise = torch.linspace(0, ALMOST_ONE, 400, dtype=torch.float64)
    exact = logits[0].double().softmax(0).numpy().cumsum()
    expected = np.minimum(np.searchsorted(exact, noise.numpy(), side="right"), size - 1)
    assert repeated(logits, noise, Sampling()).tolist() == expected.tolist()


def test_what_has_no_probability_is_never_drawn() -> None:
    logits = torch.full((1, 1400), -torch.inf)
    logits[0, [3, 600, 1100]] = 0.0
    noise = torch.tensor([0.0, 0.5, ALMOST_ONE], dtype=torch.float64)
    assert repeated(logits, noise, Sampling()).tolist() == [3, 600, 1100]


def test_where_rounding_leaves_no_sum_above_the_noise_it_is_the_last_that_has_probability() -> None:
    weights = torch.tensor([[0.5, 0.5, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    level = torch.ones(2, dtype=torch.float64)
    assert module._first_above(weights, level).tolist() == [1, 0]


def test_top_k_of_one_is_the_most_probable() -> None:
    logits = torch.randn(20, 700, generator=_generator())
    noise = torch.linspace(0, ALMOST_ONE, 20, dtype=torch.float64)
    assert draw_tokens(logits, noise, Sampling(top_k=1)).equal(logits.argmax(-1))


def test_top_k_keeps_what_ties_and_all_where_there_are_fewer() -> None:
    tied = probabilities(logits_of([1, 3, 3, 2]), Sampling(top_k=1))
    assert tied[0].tolist() == pytest.approx([0, 0.5, 0.5, 0])
    whole = probabilities(logits_of([1, 3]), Sampling(top_k=5))
    assert whole[0].tolist() == pytest.approx([0.25, 0.75])


@pytest.mark.parametrize(
    ("top_p", "kept"), [(0.01, [2]), (0.5, [2]), (0.51, [0, 2]), (0.75, [0, 2]), (0.8, [0, 1, 2])]
)
def test_top_p_keeps_the_fewest_that_reach_it(top_p: float, kept: list[int]) -> None:
    found = probabilities(logits_of([0.25, 0.125, 0.5, 0.125]), Sampling(top_p=top_p))
    assert found[0].nonzero().flatten().tolist() == kept


def test_top_p_of_one_keeps_what_rounding_does_not_see() -> None:
    rare = logits_of([1.0, 1e-20])
    assert probabilities(rare, Sampling())[0].count_nonzero() == 2
    assert probabilities(rare, Sampling(top_p=1 - 1e-9))[0].count_nonzero() == 1


def test_top_p_takes_of_equal_tokens_those_that_come_first() -> None:
    found = probabilities(torch.zeros(1, 1000), Sampling(top_p=0.5))
    assert found[0].nonzero().flatten().tolist() == list(range(500))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_probabilities_are_computed_in_double_precision(dtype: torch.dtype) -> None:
    logits = torch.randn(3, 700, generator=_generator()).to(dtype)
    assert probabilities(logits, Sampling()).equal(logits.double().softmax(-1))


def test_top_p_is_of_what_top_k_leaves() -> None:
    # Of the two most probable the first has 0.6 already, of all it has 0.375.
    sampling = Sampling(top_k=2, top_p=0.55)
    found = probabilities(logits_of([3, 2, 1, 1, 1]), sampling)
    assert found[0].nonzero().flatten().tolist() == [0]


def test_temperature_comes_before_top_p() -> None:
    hot = probabilities(logits_of([4, 1, 1]), Sampling(temperature=100.0, top_p=0.5))
    assert hot[0].nonzero().flatten().tolist() == [0, 1]


def test_a_row_is_drawn_alike_in_every_batch() -> None:
    logits = torch.randn(9, 300, generator=_generator())
    noise = torch.from_numpy(uniform_noise(0, (1,), 0, 9))
    sampling = Sampling(top_p=0.9)
    whole = draw_tokens(logits, noise, sampling)
    alone = [draw_tokens(logits[i : i + 1], noise[i : i + 1], sampling).item() for i in range(9)]
    assert whole.tolist() == alone
    for rows in (0.5, 2, 9):
        assert draw_tokens(logits, noise, sampling, int(rows * 300 * 8)).equal(whole)


def test_no_more_is_turned_into_fp64_at_once_than_a_chunk() -> None:
    logits = torch.randn(900, 40, generator=_generator())
    noise = torch.from_numpy(uniform_noise(0, (1,), 0, 900))
    with LargestTensor() as largest:
        draw_tokens(logits, noise, Sampling(top_p=0.9), 100 * 40 * 8)
    assert largest.elements == 100 * 40


def test_noise_begins_alike_whatever_its_count() -> None:
    assert (uniform_noise(1, (2, 3), 4, 9)[:5] == uniform_noise(1, (2, 3), 4, 5)).all()


def test_noise_depends_on_seed_key_and_sample() -> None:
    places = [(0, (1, 2), 3), (1, (1, 2), 3), (0, (2, 2), 3), (0, (1, 2), 4), (0, (1,), 2)]
    places += [(0, (1, 2, 3), 0), (0, (1, 2, 0), 3), (2**40, (1, 2), 3), (0, (1 + 2**33,), 3)]
    drawn = sorted(tuple(uniform_noise(*place, 4)) for place in places)
    assert all(one != other for one, other in pairwise(drawn))
    seeds = {sample_seed(*place) for place in places}
    assert len(seeds) == len(places)
    assert all(0 <= seed < 2**32 for seed in seeds)


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)
