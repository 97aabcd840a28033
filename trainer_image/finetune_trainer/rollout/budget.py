"""How many completions are drawn at once: as many as there is memory for their keys and values."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from finetune_trainer.machine import memory_bytes


@dataclass(frozen=True)
class Piece:
    """Some samples of one prompt: `count` of them from `first` on."""

    prompt: int
    first: int
    count: int

    @property
    def samples(self) -> range:
        """Return the samples' indices in their group."""
        return range(self.first, self.first + self.count)


def free_bytes(device: torch.device, processes: int) -> int:
    """Return the memory that this process, one of several on its node, may still take."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + unused
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return max(0, memory_bytes() // processes - pages * os.sysconf("SC_PAGE_SIZE"))


def batches(
    lengths: Sequence[int],
    samples: Sequence[int],
    most_added: int,
    room: int,
    *,
    one_length: bool,
) -> Iterator[list[Piece]]:
    """Yield batches of which each keeps at most `room` tokens, if a single completion does.

    `lengths` and `samples` are of each prompt; a completion adds at most `most_added` tokens. The
    longest come first, so that those of a batch are alike; with `one_length` they are of one.
    """
    batch: list[Piece] = []
    kept = 0
    for prompt in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        for piece in _pieces(prompt, samples[prompt], (room - lengths[prompt]) // most_added):
            longest = lengths[batch[0].prompt] if batch else lengths[prompt]
            needed = longest + piece.count * most_added  # a batch's prompts are padded
            if batch and (kept + needed > room or (one_length and lengths[prompt] != longest)):
                yield batch
                batch, kept = [], 0
                needed -= longest - lengths[prompt]
            batch.append(piece)
            kept += needed
    if batch:
        yield batch


def _pieces(prompt: int, samples: int, most: int) -> Iterator[Piece]:
    for first in range(0, samples, max(1, most)):
        yield Piece(prompt, first, min(max(1, most), samples - first))
