"""A row that is left out moves no other row to another step."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_contract.recipe import TrainingRecipe
from finetune_trainer.batch.batches import BatchOrder
from finetune_trainer.data.dataset import Dataset, Source

WEIGHTS = st.sampled_from([0.25, 0.5, 1.0, 1.5, 2.0])
# Of each source: how many places it has, its weight, which places are left out.
SOURCES = st.lists(
    st.integers(1, 12).flatmap(
        lambda n: st.tuples(st.just(n), WEIGHTS, st.sets(st.integers(0, n - 1), max_size=n - 1))
    ),
    min_size=1,
    max_size=3,
)
LENGTHS = st.one_of(
    st.builds(lambda n: {"epochs": n}, st.integers(1, 3)),
    st.builds(lambda n: {"max_steps": n}, st.integers(1, 20)),
)


def dataset(sources: Sequence[tuple[int, float, set[int]]]) -> Dataset:
    kept = [[at for at in range(n) if at not in out] for n, _, out in sources]
    places = np.concatenate(kept)
    return Dataset(
        tokens=np.zeros(len(places), np.int32),
        learned=np.zeros(len(places), np.bool_),
        offsets=np.arange(len(places) + 1, dtype=np.int64),
        lines=places + 1,
        places=places,
        sources=tuple(Source(n - len(out), weight, len(out)) for n, weight, out in sources),
    )


def by_step(recipe: TrainingRecipe, data: Dataset) -> list[list[int]]:
    """Return the places that each step's rows have among all rows of all sources."""
    order = BatchOrder.of(recipe, data)
    return [[data.place(int(row)) for row in order.batch(step)] for step in range(order.steps)]


@settings(max_examples=150)
@given(SOURCES, st.integers(1, 8), st.integers(0, 3), LENGTHS)
def test_each_step_has_the_rows_that_it_would_have_less_those_left_out(
    sources: list[tuple[int, float, set[int]]], size: int, seed: int, length: dict[str, int]
) -> None:
    recipe = TrainingRecipe(global_batch_size=size, seed=seed, **length)
    whole = by_step(recipe, dataset([(n, weight, set()) for n, weight, _ in sources]))
    firsts = np.cumsum([0, *(n for n, _, _ in sources)])
    left_out = {
        int(first) + place
        for first, (_, _, out) in zip(firsts, sources, strict=False)
        for place in out
    }
    expected = [[place for place in step if place not in left_out] for step in whole]
    assert by_step(recipe, dataset(sources)) == expected


def test_steps_are_counted_by_places() -> None:
    recipe = TrainingRecipe(global_batch_size=4, epochs=2)
    sparse = by_step(recipe, dataset([(30, 0.5, {*range(1, 30)})]))
    assert len(sparse) == math.ceil(30 * 0.5 * 2 / 4)
    assert [place for step in sparse for place in step] == [0], (
        "two epochs of half of the places take each once"
    )
