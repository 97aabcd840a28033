"""Which rows a step learns from depends on seed and step, never on the layout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_contract.recipe import TrainingRecipe
from finetune_trainer.batch.batches import BatchOrder, deal
from finetune_trainer.data.dataset import Dataset, Source


def dataset(*sources: Source, places: Sequence[Sequence[int]] | None = None) -> Dataset:
    rows = sum(source.rows for source in sources)
    offsets = np.arange(rows + 1, dtype=np.int64)
    tokens, learned = np.zeros(rows, np.int32), np.zeros(rows, np.bool_)
    kept = [range(source.rows) for source in sources] if places is None else places
    return Dataset(tokens, learned, offsets, offsets[1:], np.concatenate(kept), sources)


def order(rows: int, size: int = 8, **recipe: int) -> BatchOrder:
    return BatchOrder.of(TrainingRecipe(global_batch_size=size, **recipe), dataset(Source(rows)))


def weighted(*sources: Source, epochs: int = 1, size: int = 5) -> list[int]:
    recipe = TrainingRecipe(global_batch_size=size, epochs=epochs)
    whole = BatchOrder.of(recipe, dataset(*sources))
    return [int(row) for step in range(whole.steps) for row in whole.batch(step)]


@settings(max_examples=40)
@given(st.integers(1, 40), st.integers(1, 16), st.integers(1, 4), st.integers(0, 3))
def test_every_row_is_seen_once_per_epoch(rows: int, size: int, epochs: int, seed: int) -> None:
    whole = order(rows, size, epochs=epochs, seed=seed)
    batches = [whole.batch(step) for step in range(whole.steps)]
    assert all(len(batch) == size for batch in batches[:-1])
    assert 1 <= len(batches[-1]) <= size
    seen = np.concatenate(batches)
    for epoch in range(epochs):
        assert sorted(seen[epoch * rows : (epoch + 1) * rows]) == list(range(rows))


@settings(max_examples=40)
@given(
    st.lists(
        st.builds(Source, st.integers(1, 12), st.sampled_from([0.25, 0.5, 1.0, 1.5, 2.0, 3.0])),
        min_size=1,
        max_size=3,
    ),
    st.integers(1, 4),
)
def test_an_epoch_takes_weight_times_rows_of_each_source(
    sources: list[Source], epochs: int
) -> None:
    seen = weighted(*sources, epochs=epochs)
    per_epoch = sum(max(1, int(s.weight * s.rows + 0.5)) for s in sources)
    assert len(seen) == epochs * per_epoch
    first = 0
    for source in sources:
        mine = range(first, first + source.rows)
        first += source.rows
        taken = max(1, int(source.weight * source.rows + 0.5))
        for epoch in range(epochs):
            of_epoch = seen[epoch * per_epoch : (epoch + 1) * per_epoch]
            assert sum(row in mine for row in of_epoch) == taken
        # No row comes again before all others have come as often.
        counts = Counter(row for row in seen if row in mine)
        often = [counts[row] for row in mine]
        assert max(often) - min(often) <= 1


def test_weight_two_takes_each_row_twice_in_each_epoch() -> None:
    seen = weighted(Source(3), Source(4, 2.0))
    assert sorted(seen) == [0, 1, 2, 3, 3, 4, 4, 5, 5, 6, 6]


def test_weight_one_half_takes_another_half_in_the_next_epoch() -> None:
    seen = weighted(Source(6, 0.5), epochs=2)
    assert set(seen[:3]).isdisjoint(seen[3:])
    assert sorted(seen) == list(range(6))


def test_which_rows_an_epoch_takes_does_not_depend_on_the_other_sources() -> None:
    def of_second(first: Source) -> set[int]:
        seen = weighted(first, Source(20, 0.5))
        return {row - first.rows for row in seen if row >= first.rows}

    assert len(of_second(Source(9))) == 10
    assert of_second(Source(9)) == of_second(Source(4, 2.0))


def test_each_pass_through_a_source_and_each_source_have_an_order_of_their_own() -> None:
    seen = weighted(Source(40, 0.5), epochs=3)
    assert set(seen[:20]) != set(seen[40:])
    both = weighted(Source(40, 0.5), Source(40, 0.5))
    assert {row for row in both if row < 40} != {row - 40 for row in both if row >= 40}


def test_the_rows_of_sources_are_mixed() -> None:
    seen = np.array(weighted(Source(200), Source(200)))
    early = (seen[:200] < 200).sum()
    assert 70 <= early <= 130
    assert list(seen[seen < 200]) != list(range(200))


def test_neither_length_means_one_epoch() -> None:
    assert order(17).steps == 3
    assert len(order(17).batch(2)) == 1


def test_max_steps_are_whole_batches_over_as_many_epochs_as_it_takes() -> None:
    whole = order(5, max_steps=4)
    assert whole.steps == 4
    assert [len(whole.batch(step)) for step in range(4)] == [8, 8, 8, 8]
    assert np.bincount(np.concatenate([whole.batch(step) for step in range(4)])).min() >= 6


def test_seed_and_epoch_change_the_order() -> None:
    first = order(64, 64, epochs=2, seed=1)
    assert list(first.batch(0)) == list(order(64, 64, epochs=2, seed=1).batch(0))
    assert list(first.batch(0)) != list(first.batch(1))
    assert list(first.batch(0)) != list(order(64, 64, epochs=2, seed=2).batch(0))


def test_any_step_of_a_huge_dataset_is_known_at_once() -> None:
    huge = BatchOrder((Source(10**12), Source(10**11, 2.0)), 8, 0, 10**12, 10**13)
    batch = huge.batch(10**11)
    assert len(set(batch.tolist())) == 8
    assert batch.max() < 11 * 10**11


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
