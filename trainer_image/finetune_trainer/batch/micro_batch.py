"""Rows -> the tensors of one micro-batch, padded side by side or packed one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from finetune_trainer.data.encode import EncodedRow
from finetune_trainer.model.attention import Segments


@dataclass(frozen=True)
class PolicyTerms:
    """What a policy-gradient loss knows of the P learned tokens beside their probabilities now.

    They belong to S completions, none of them split.
    """

    advantages: Tensor  # fp32 [P], of the token's completion
    behaviour: Tensor | None  # fp32 [P], log-probabilities when it was drawn; None: as they are now
    reference: Tensor | None  # fp32 [P], log-probabilities under the reference; None without KL
    completions: Tensor  # int64 [P], which of the S
    lengths: Tensor  # fp32 [S], learned tokens


@dataclass(frozen=True)
class MicroBatch:
    """B rows of at most T tokens, and the P tokens of them that are learned.

    Padded, they are [B, T]: padding stands on the right, where it reaches neither the loss nor,
    behind the causal mask, another token; position ids are the model's default. Packed, the rows
    are one sequence [1, their sum], each a segment with positions of its own. No attention mask.
    """

    input_ids: Tensor  # int64 [B, T] or [1, sum of T]
    position_ids: Tensor | None  # int64, as input_ids; None unless packed
    segments: Segments | None  # None unless packed
    rows: Tensor  # int64 [P]: where in the first dimension each learned token is predicted
    times: Tensor  # int64 [P]: and where in the second
    targets: Tensor  # int64 [P]: its id
    weights: Tensor  # fp32 [P]: 1, or 0 in a micro-batch that only keeps the ranks in step
    policy: PolicyTerms | None = None  # reinforcement learning only

    @classmethod
    def of(
        cls, rows: Sequence[EncodedRow], device: torch.device, *, packed: bool = False
    ) -> MicroBatch:
        """Return the tensors of some rows; of none those that learn nothing."""
        if not rows:
            return cls.idle(device, packed=packed)
        return _packed(rows, device) if packed else _padded(rows, device)

    @classmethod
    def idle(cls, device: torch.device, *, packed: bool = False) -> MicroBatch:
        """Return one that learns nothing: a rank without rows still joins every collective."""
        token = EncodedRow(np.zeros(2, dtype=np.int32), np.array([False, True]))
        batch = cls.of([token], device, packed=packed)
        return cls(**{**vars(batch), "weights": torch.zeros(1, device=device)})


def _padded(rows: Sequence[EncodedRow], device: torch.device) -> MicroBatch:
    longest = max(len(row.tokens) for row in rows)
    ids = np.zeros((len(rows), longest), dtype=np.int64)
    learned = np.zeros((len(rows), longest), dtype=np.bool_)
    for index, row in enumerate(rows):
        ids[index, : len(row.tokens)] = row.tokens
        learned[index, : len(row.tokens)] = row.learned
    return _micro_batch(ids, learned, device)


def _packed(rows: Sequence[EncodedRow], device: torch.device) -> MicroBatch:
    ids = np.concatenate([row.tokens for row in rows])[None].astype(np.int64)
    learned = np.concatenate([row.learned for row in rows])[None]  # a row's first token never is
    lengths = tuple(len(row.tokens) for row in rows)
    positions = np.concatenate([np.arange(length) for length in lengths])[None]
    return replace(
        _micro_batch(ids, learned, device),
        position_ids=torch.from_numpy(positions).to(device),
        segments=Segments.of(lengths, device),
    )


def _micro_batch(
    ids: npt.NDArray[np.int64], learned: npt.NDArray[np.bool_], device: torch.device
) -> MicroBatch:
    at_rows, at_times = np.nonzero(learned)
    return MicroBatch(
        input_ids=torch.from_numpy(ids).to(device),
        position_ids=None,
        segments=None,
        rows=torch.from_numpy(at_rows).to(device),
        times=torch.from_numpy(at_times - 1).to(device),
        targets=torch.from_numpy(ids[at_rows, at_times]).to(device),
        weights=torch.ones(len(at_rows), device=device),
    )
