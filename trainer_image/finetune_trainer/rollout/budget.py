"""How many completions are drawn at once: as many as there is memory for what is kept of them.

The memory is what the memory formula leaves, and none that is measured: numbers in BF16 hang on
which rows a batch has, and an attempt that goes on must draw what the last one would have drawn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from finetune_contract.resolved import MemoryEstimate
from finetune_trainer.memory.formula import READ_TOKENS


@dataclass(frozen=True)
class Piece:
    """Some samples of one prompt: `count` of them from `first` on."""

    prompt: int
    first: int
    count: int

    @property
    def samples(self) -> range:
        """Return the samples' indices among those that are wanted of the prompt."""
        return range(self.first, self.first + self.count)


@dataclass(frozen=True)
class Kept:
    """The bytes that a decoder keeps of a token, and of a row whatever its length.

    With `shares` a prompt is kept once for all of its rows, and those of a batch are padded; else
    they are of one length.
    """

    token: int
    row: int
    shares: bool


def free_bytes(memory: MemoryEstimate) -> int:
    """Return what a process's device has beside what stays there while completions are drawn."""
    assert memory.available is not None, "the estimate of a run tells it"
    stays = memory.total - memory.activations - memory.logits
    return max(0, memory.available - stays)


def batches(
    lengths: Sequence[int], samples: Sequence[int], most_added: int, room: int, kept: Kept
) -> Iterator[list[Piece]]:
    """Yield batches of which each keeps at most `room` bytes, if a single completion does.

    `lengths` and `samples` are of each prompt; a completion adds at most `most_added` tokens. The
    longest come first, so that those of a batch are alike.
    """
    batch: list[Piece] = []
    longest = held = 0
    for prompt in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        length = lengths[prompt]
        each = kept.row + kept.token * (most_added if kept.shares else length + most_added)
        once = kept.token * length if kept.shares else 0
        for piece in _pieces(prompt, samples[prompt], (room - once) // each):
            padded = kept.token * longest if kept.shares and batch else once
            needed = padded + piece.count * each
            full = held + needed > room or not (
                kept.shares or (length == longest and (len(batch) + 1) * length <= READ_TOKENS)
            )
            if batch and full:
                yield batch
                batch, held = [], 0
                needed = once + piece.count * each
            if not batch:
                longest = length
            batch.append(piece)
            held += needed
    if batch:
        yield batch


def _pieces(prompt: int, samples: int, most: int) -> Iterator[Piece]:
    for first in range(0, samples, max(1, most)):
        yield Piece(prompt, first, min(max(1, most), samples - first))
