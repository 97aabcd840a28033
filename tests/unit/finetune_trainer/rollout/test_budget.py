"""Batches hold every completion once and keep no more than there is room for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from finetune_contract.resolved import MemoryEstimate
from finetune_trainer.memory.formula import READ_TOKENS
from finetune_trainer.rollout.budget import Kept, batches, free_bytes

PROMPT = st.tuples(st.integers(1, 40), st.integers(1, 9))  # tokens, samples
TOKEN = 3


@given(
    prompts=st.lists(PROMPT, max_size=12),
    added=st.integers(1, 20),
    room=st.integers(0, 900),
    row=st.integers(0, 50),
    shares=st.booleans(),
)
def test_every_completion_is_drawn_once_within_the_room(
    prompts: list[tuple[int, int]], added: int, room: int, row: int, shares: bool
) -> None:
    lengths, samples = [p[0] for p in prompts], [p[1] for p in prompts]
    made = list(batches(lengths, samples, added, room, Kept(TOKEN, row, shares)))
    drawn = [
        (piece.prompt, sample) for batch in made for piece in batch for sample in piece.samples
    ]
    assert sorted(drawn) == [(i, s) for i, count in enumerate(samples) for s in range(count)]
    for batch in made:
        longest = max(lengths[piece.prompt] for piece in batch)
        rows = sum(piece.count for piece in batch)
        copies = len(batch) if shares else rows
        held = TOKEN * (copies * longest + rows * added) + rows * row
        assert held <= room or rows == 1
        assert shares or {lengths[piece.prompt] for piece in batch} == {longest}


def test_a_batch_is_filled_before_the_next_and_the_longest_come_first() -> None:
    shared = Kept(TOKEN, 0, shares=True)
    [first, second] = batches([5, 9, 7], [2, 2, 2], 10, 58 * TOKEN, shared)
    assert [piece.prompt for piece in first] == [1, 2]
    assert [piece.prompt for piece in second] == [0]


def test_rows_with_a_prompt_of_their_own_fill_the_room() -> None:
    [first, second] = batches([4, 4, 4], [2, 1, 2], 6, 4 * 32, Kept(3, 2, shares=False))
    assert [(piece.prompt, piece.count) for piece in first] == [(0, 2), (1, 1)]
    assert [(piece.prompt, piece.count) for piece in second] == [(2, 2)]


def test_a_prompt_s_rows_fill_the_room_to_the_last_byte() -> None:
    """What shares holds 4 tokens once, and 6 of each row; what does not holds 10 of each row."""
    for shares, room in ((False, 4 * 32), (True, 4 * 20 + 12)):
        for less, counts in ((0, [4]), (1, [3, 1])):
            made = batches([4], [4], 6, room - less, Kept(3, 2, shares))
            assert [[piece.count for piece in batch] for batch in made] == [[n] for n in counts]


def test_every_batch_is_filled_to_the_last_byte() -> None:
    made = batches([4] * 4, [2] * 4, 6, 4 * 32, Kept(3, 2, shares=False))
    assert [[piece.prompt for piece in batch] for batch in made] == [[0, 1], [2, 3]]
    made = batches([4] * 4, [2] * 4, 6, 4 * 20 + 2 * 12, Kept(3, 2, shares=True))
    assert [[piece.prompt for piece in batch] for batch in made] == [[0, 1], [2, 3]]


def test_prompts_read_in_one_pass_have_a_bound() -> None:
    lengths, samples = [*[READ_TOKENS // 4] * 5, *[READ_TOKENS + 1] * 2], [1] * 7
    whole = batches(lengths, samples, 5, 10**9, Kept(TOKEN, 0, shares=False))
    assert [[piece.prompt for piece in batch] for batch in whole] == [[5], [6], [0, 1, 2, 3], [4]]
    assert len(list(batches(lengths, samples, 5, 10**9, Kept(TOKEN, 0, shares=True)))) == 1


def test_what_stays_on_the_device_is_not_free() -> None:
    parts = {"weights": 1, "adapter": 2, "gradients": 4, "optimizer": 8, "overhead": 16}
    made = MemoryEstimate(**parts, activations=32, logits=64, available=1000)
    assert free_bytes(made) == 1000 - 31
    assert free_bytes(made.model_copy(update={"available": 30})) == 0
