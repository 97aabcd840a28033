"""Buffers: what a step gets of them under any layout, and what a checkpoint keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from finetune_trainer.data.dataset import Dataset, Source
from finetune_trainer.methods.grpo.buffer import (
    Buffer,
    deal_groups,
    micro_batch,
    splits_groups,
    used_passes,
)
from finetune_trainer.methods.grpo.prompts.dataset import Prompts

LENGTHS = (3, 1, 4, 2, 2, 5, 1, 3, 6, 2, 2, 1)
PROMPTS = ((1, 2, 3), (4,), (5, 6))


def dataset() -> Prompts:
    tokens = np.array([token for prompt in PROMPTS for token in prompt], dtype=np.int32)
    offsets = np.cumsum([0, *map(len, PROMPTS)])
    data = Dataset(
        tokens,
        np.zeros(len(tokens), dtype=np.bool_),
        offsets,
        np.arange(1, 4),
        np.arange(3),
        (Source(3),),
    )
    return Prompts(data, (), np.zeros(0, dtype=np.uint8), np.zeros(4, dtype=np.int64))


def buffer(**changes: object) -> Buffer:
    """Return three groups of four; the sixth completion has nothing to learn from."""
    count, total = len(LENGTHS), sum(LENGTHS)
    values: dict[str, object] = {
        "index": 7,
        "rows": np.array([2, 0, 1]),
        "tokens": np.arange(100, 100 + total, dtype=np.int32),
        "lengths": np.array(LENGTHS),
        "advantages": np.linspace(-1, 1, count),
        "kept": np.ones(count, dtype=np.bool_),
        "learned": np.arange(count) != 5,
        "behaviour": -np.arange(total, dtype=np.float32),
        "metrics": {"reward/mean": 0.1, "reward/x/std": float("nan")},
    }
    return Buffer(**{**values, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 6, 12])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_every_learned_completion_is_dealt_once(size: int, world: int) -> None:
    made = buffer()
    passes = -(-12 // (size * world))
    shares = deal_groups(made, size=size, world=world, passes=passes)
    assert [len(by_rank) for by_rank in shares] == [world] * passes
    assert all(len(load) <= size for by_rank in shares for load in by_rank)
    dealt = sorted(int(one) for by_rank in shares for load in by_rank for one in load)
    assert dealt == [one for one in range(12) if one != 5]


def test_a_group_stays_whole_where_it_fits() -> None:
    shares = deal_groups(buffer(), size=4, world=1, passes=3)
    groups = [{int(one) // 4 for one in load} for [load] in shares]
    assert groups == [{2}, {0}, {1}]  # the longest first


def test_a_pass_holds_what_is_about_equally_long() -> None:
    [first, second] = deal_groups(buffer(learned=np.ones(12, dtype=np.bool_)), **size(2, 2, 3))[:2]
    lengths = np.array(LENGTHS)
    assert min(lengths[load].sum() for load in first) >= max(lengths[load].sum() for load in second)


def size(size: int, world: int, passes: int) -> dict[str, int]:
    return {"size": size, "world": world, "passes": passes}


def test_small_groups_share_what_whole_ones_would_leave_empty() -> None:
    """Groups of 3 in micro-batches of 4: whole, they would need one more than there are."""
    learned = np.ones(12, dtype=np.bool_)
    learned[[3, 7]] = False
    shares = deal_groups(buffer(learned=learned), **size(5, 1, 2))
    assert [len(load) for [load] in shares] == [5, 5]


def test_groups_that_fit_together_are_put_together() -> None:
    """Groups of 1, 1, 3 and 3: in this order, whole ones would take three micro-batches of 4."""
    learned = np.ones(12, dtype=np.bool_)
    learned[[1, 2, 4, 5]] = False
    made = buffer(rows=np.array([2, 0, 1, 0]), learned=learned)
    shares = deal_groups(made, **size(4, 1, 2))
    assert [len(load) for [load] in shares] == [4, 4]
    assert not splits_groups(shares, 3)
    assert splits_groups(deal_groups(made, **size(4, 1, 2)), 2)


@pytest.mark.parametrize("packed", [True, False])
def test_nothing_to_learn_is_dealt_as_nothing(packed: bool) -> None:
    shares = deal_groups(buffer(learned=np.zeros(12, dtype=np.bool_)), **size(2, 2, 3))
    assert used_passes(shares) == 0
    empty = micro_batch(buffer(), shares[0][0], dataset(), torch.device("cpu"), packed=packed)
    assert empty.policy is None
    assert empty.weights.sum() == 0
    assert (empty.segments is not None) == packed, "as the other ranks' are"


def test_a_pass_is_used_if_any_rank_learns_in_it() -> None:
    shares = deal_groups(buffer(), **size(4, 2, 3))
    assert [[len(load) for load in by_rank] for by_rank in shares] == [[4, 4], [3, 0], [0, 0]]
    assert used_passes(shares) == 2


@pytest.mark.parametrize("packed", [True, False])
def test_completions_stand_behind_their_prompts(packed: bool) -> None:
    made = buffer(reference=np.full(sum(LENGTHS), 0.5, dtype=np.float32))
    found = micro_batch(made, np.array([4, 8]), dataset(), torch.device("cpu"), packed=packed)
    spans = [made.span(4), made.span(8)]
    completions = [made.tokens[span] for span in spans]
    assert found.targets.tolist() == [*completions[0].tolist(), *completions[1].tolist()]
    rows = found.input_ids.tolist()
    first, second = [1, 2, 3, *completions[0]], [4, *completions[1]]
    assert rows == ([[*first, *second]] if packed else [[*first, 0, 0], second])
    policy = found.policy
    assert policy is not None
    assert policy.completions.tolist() == [0] * 2 + [1] * 6
    assert policy.lengths.tolist() == [2, 6]
    assert policy.advantages.tolist() == pytest.approx(
        np.repeat(made.advantages[[4, 8]], [2, 6]).tolist()
    )
    assert made.behaviour is not None
    assert policy.behaviour is not None
    expected = [value for span in spans for value in made.behaviour[span]]
    assert policy.behaviour.tolist() == expected
    assert policy.reference is not None
    assert policy.reference.tolist() == [0.5] * 8


class Summed(np.ndarray):
    """Lengths that count the numbers that are added up of them."""

    added = 0

    def sum(self, *args: Any, **options: Any) -> Any:
        Summed.added += self.size
        return super().sum(*args, **options)

    def cumsum(self, *args: Any, **options: Any) -> Any:
        Summed.added += self.size
        return super().cumsum(*args, **options)


def test_spans_are_found_without_adding_up_all_before_each() -> None:
    made = buffer(lengths=np.array(LENGTHS).view(Summed))
    spans = [made.span(completion) for completion in range(len(LENGTHS))]
    assert [span.stop - span.start for span in spans] == list(LENGTHS)
    assert [span.start for span in spans] == [0, *(span.stop for span in spans[:-1])]
    assert Summed.added == len(LENGTHS)


def test_a_checkpoint_takes_what_was_given_alone() -> None:
    made = buffer()
    names = made.tensors().keys()
    made.span(3)
    assert made.tensors().keys() == names


@pytest.mark.parametrize("reference", [None, np.ones(sum(LENGTHS), dtype=np.float32)])
def test_a_checkpoint_gives_back_what_it_took(reference: np.ndarray | None, tmp_path: Path) -> None:
    made = buffer(reference=reference, nothing="reward ü gave 0")
    save_file(made.tensors(), tmp_path / "saved")
    found = Buffer.of(load_file(tmp_path / "saved"))
    assert vars(found).keys() == vars(made).keys()
    for name, value in vars(made).items():
        if isinstance(value, np.ndarray):
            assert getattr(found, name).dtype == value.dtype
            np.testing.assert_array_equal(getattr(found, name), value)
    assert (found.index, found.nothing) == (7, "reward ü gave 0")
    assert (found.reference is None) == (reference is None)
    assert type(found.index) is int
    assert found.metrics["reward/mean"] == 0.1
    assert np.isnan(found.metrics["reward/x/std"])
