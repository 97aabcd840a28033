"""Which rows a step learns from depends on seed and step, never on the layout."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from finetune_contract.recipe import TrainingRecipe
from finetune_trainer.data.batches import BatchPlan, deal


def plan(rows: int, size: int = 8, **recipe: int) -> BatchPlan:
    return BatchPlan.of(TrainingRecipe(global_batch_size=size, **recipe), rows)


@given(st.integers(1, 40), st.integers(1, 16), st.integers(1, 4), st.integers(0, 3))
def test_every_row_is_seen_once_per_epoch(rows: int, size: int, epochs: int, seed: int) -> None:
    whole = plan(rows, size, epochs=epochs, seed=seed)
    batches = [whole.batch(step) for step in range(whole.steps)]
    assert all(len(batch) == size for batch in batches[:-1])
    assert 1 <= len(batches[-1]) <= size
    seen = np.concatenate(batches)
    for epoch in range(epochs):
        assert sorted(seen[epoch * rows : (epoch + 1) * rows]) == list(range(rows))


def test_neither_length_means_one_epoch() -> None:
    assert plan(17).steps == 3
    assert len(plan(17).batch(2)) == 1


def test_max_steps_are_whole_batches_over_as_many_epochs_as_it_takes() -> None:
    whole = plan(5, max_steps=4)
    assert whole.steps == 4
    assert [len(whole.batch(step)) for step in range(4)] == [8, 8, 8, 8]
    assert np.bincount(np.concatenate([whole.batch(step) for step in range(4)])).min() >= 6


def test_seed_and_epoch_change_the_order() -> None:
    first = plan(64, 64, epochs=2, seed=1)
    assert list(first.batch(0)) == list(plan(64, 64, epochs=2, seed=1).batch(0))
    assert list(first.batch(0)) != list(first.batch(1))
    assert list(first.batch(0)) != list(plan(64, 64, epochs=2, seed=2).batch(0))


@given(
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(1, 4),
    st.data(),
)
def test_ranks_share_a_batch_without_loss(
    world: int, micro: int, passes: int, data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, world * micro * passes))
    lengths = np.array(data.draw(st.lists(st.integers(1, 99), min_size=count, max_size=count)))
    batch = np.arange(100, 100 + count)
    shares = [
        deal(batch, lengths, rank=rank, world=world, micro_batch_size=micro, passes=passes)
        for rank in range(world)
    ]
    assert all(len(share) == passes for share in shares)
    assert all(len(rows) <= micro for share in shares for rows in share)
    assert sorted(np.concatenate([rows for share in shares for rows in share])) == list(batch)
    # Of two passes the earlier holds the longer rows, on every rank.
    by_pass = [np.concatenate([share[index] for share in shares]) - 100 for index in range(passes)]
    for earlier, later in pairwise(by_pass):
        if len(later):
            assert lengths[earlier].min() >= lengths[later].max()
