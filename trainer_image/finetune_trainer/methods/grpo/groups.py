"""Groups of completions -> micro-batches, the prompt of each computed once where rows are packed.

A group is packed as its prompt and then its completions, each of which sees the prompt and itself.
So the prompt's part of the forward and backward pass is done once, not once per completion, and no
KV cache is involved: under gradient checkpointing one would be silently wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from finetune_trainer.batch.micro_batch import MicroBatch
from finetune_trainer.data.encode import EncodedRow
from finetune_trainer.model.attention import Segments

Tokens = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Group:
    """A prompt, of at least one token, and completions of at least one token each."""

    prompt: Tokens
    completions: tuple[Tokens, ...]

    def rows(self) -> list[EncodedRow]:
        """Return each completion behind a prompt of its own; the completions are learned."""
        learned = [
            np.arange(len(self.prompt) + len(c)) >= len(self.prompt) for c in self.completions
        ]
        whole = [np.concatenate([self.prompt, c]) for c in self.completions]
        return [EncodedRow(t, mask) for t, mask in zip(whole, learned, strict=True)]


def group_batch(groups: Sequence[Group], device: torch.device, *, packed: bool) -> MicroBatch:
    """Return the micro-batch of at least one group.

    Learned tokens stand group by group, completion by completion, in either layout.
    """
    if not packed:
        return MicroBatch.of([row for group in groups for row in group.rows()], device)
    lengths: list[int] = []
    positions, times, targets, parts = [], [], [], []
    start = 0
    for group in groups:
        prompt, first = len(group.prompt), start
        parts.append(group.prompt)
        positions.append(np.arange(prompt))
        lengths.append(prompt)
        start += prompt
        for completion in group.completions:
            size = len(completion)
            parts.append(completion)
            positions.append(prompt + np.arange(size))
            lengths.append(size)
            # The prompt's last token predicts the first of each completion.
            times.append(np.concatenate([[first + prompt - 1], start + np.arange(size - 1)]))
            targets.append(completion)
            start += size
    families = tuple(1 + len(group.completions) for group in groups)
    at, learned = np.concatenate(times), np.concatenate(targets)

    def tensor(values: npt.NDArray[np.generic]) -> torch.Tensor:
        return torch.from_numpy(values.astype(np.int64)).to(device)

    return MicroBatch(
        input_ids=tensor(np.concatenate(parts)[None]),
        position_ids=tensor(np.concatenate(positions)[None]),
        segments=Segments.of(tuple(lengths), device, families),
        rows=torch.zeros(len(at), dtype=torch.int64, device=device),
        times=tensor(at),
        targets=tensor(learned),
        weights=torch.ones(len(at), device=device),
    )
