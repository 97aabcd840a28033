"""Batches hold every completion once and no more tokens than there is room for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from finetune_trainer.rollout import budget
from finetune_trainer.rollout.budget import batches, free_bytes

PROMPT = st.tuples(st.integers(1, 40), st.integers(1, 9))  # tokens, samples


@given(
    prompts=st.lists(PROMPT, max_size=12),
    added=st.integers(1, 20),
    room=st.integers(0, 300),
    one_length=st.booleans(),
)
def test_every_completion_is_drawn_once_within_the_room(
    prompts: list[tuple[int, int]], added: int, room: int, one_length: bool
) -> None:
    lengths, samples = [p[0] for p in prompts], [p[1] for p in prompts]
    made = list(batches(lengths, samples, added, room, one_length=one_length))
    drawn = [
        (piece.prompt, sample) for batch in made for piece in batch for sample in piece.samples
    ]
    assert sorted(drawn) == [(i, s) for i, count in enumerate(samples) for s in range(count)]
    for batch in made:
        longest = max(lengths[piece.prompt] for piece in batch)
        kept = sum(longest + piece.count * added for piece in batch)
        assert kept <= room or [piece.count for piece in batch] == [1]
        if one_length:
            assert len({lengths[piece.prompt] for piece in batch}) == 1


def test_a_batch_is_filled_before_the_next_and_the_longest_come_first() -> None:
    [first, second] = batches([5, 9, 7], [2, 2, 2], 10, 58, one_length=False)
    assert [piece.prompt for piece in first] == [1, 2]
    assert [piece.prompt for piece in second] == [0]


def test_memory_on_a_cpu_is_shared_by_the_processes_of_a_node(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(budget, "memory_bytes", lambda: 2**40)
    used = 2**40 - free_bytes(torch.device("cpu"), 1)
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * 4096
    assert used == pytest.approx(resident, rel=0.1)
    assert free_bytes(torch.device("cpu"), 2) == pytest.approx(2**39 - used, rel=0.01)
    monkeypatch.setattr(budget, "memory_bytes", lambda: 1)
    assert free_bytes(torch.device("cpu"), 1) == 0
