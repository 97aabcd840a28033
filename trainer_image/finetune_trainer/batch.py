"""Rows -> the tensors of one micro-batch, and the log-probabilities a model gives them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name everyone knows
from torch import Tensor

from finetune_contract.runconfig import RunConfig
from finetune_trainer.data.batches import BatchPlan, deal
from finetune_trainer.data.dataset import Dataset
from finetune_trainer.data.encode import EncodedRow


@dataclass(frozen=True)
class MicroBatch:
    """B rows padded on the right to T tokens, and the P tokens of them that are learned.

    Padding never reaches the loss and, behind the causal mask, no other token; so there is no
    attention mask, and position ids are the model's default 0..T-1.
    """

    input_ids: Tensor  # int64 [B, T]
    rows: Tensor  # int64 [P]: the row of each learned token
    times: Tensor  # int64 [P]: the position that predicts it
    targets: Tensor  # int64 [P]: its id
    weights: Tensor  # fp32 [P]: 1, or 0 in a micro-batch that only keeps the ranks in step

    @classmethod
    def of(cls, rows: Sequence[EncodedRow], device: torch.device) -> MicroBatch:
        """Return the tensors of at least one row."""
        longest = max(len(row.tokens) for row in rows)
        ids = np.zeros((len(rows), longest), dtype=np.int64)
        learned = np.zeros((len(rows), longest), dtype=np.bool_)
        for index, row in enumerate(rows):
            ids[index, : len(row.tokens)] = row.tokens
            learned[index, : len(row.tokens)] = row.learned
        at_rows, at_times = np.nonzero(learned)
        return cls(
            input_ids=torch.from_numpy(ids).to(device),
            rows=torch.from_numpy(at_rows).to(device),
            times=torch.from_numpy(at_times - 1).to(device),
            targets=torch.from_numpy(ids[at_rows, at_times]).to(device),
            weights=torch.ones(len(at_rows), device=device),
        )

    @classmethod
    def idle(cls, device: torch.device) -> MicroBatch:
        """Return one that learns nothing: a rank without rows still joins every collective."""
        token = EncodedRow(np.zeros(2, dtype=np.int32), np.array([False, True]))
        batch = cls.of([token], device)
        return cls(**{**vars(batch), "weights": torch.zeros(1, device=device)})


@dataclass(frozen=True)
class StepBatch:
    """One rank's micro-batches of an optimizer step, and counts over all ranks."""

    micro_batches: tuple[MicroBatch, ...]
    tokens: int
    learned: int


def step_batch(
    plan: BatchPlan,
    step: int,
    data: Dataset,
    config: RunConfig,
    rank: int,
    device: torch.device,
) -> StepBatch:
    """Return a rank's share of a step's batch. Every rank holds all rows, so it can count alone."""
    indices = plan.batch(step)
    rows = {int(index): data.row(int(index)) for index in indices}
    lengths = np.array([len(rows[int(index)].tokens) for index in indices])
    shares = deal(
        indices,
        lengths,
        rank=rank,
        world=config.layout.world_size,
        micro_batch_size=config.micro_batch_size,
        passes=config.accumulation_steps,
    )
    return StepBatch(
        micro_batches=tuple(
            MicroBatch.of([rows[int(index)] for index in share], device)
            if len(share)
            else MicroBatch.idle(device)
            for share in shares
        ),
        tokens=int(lengths.sum()),
        learned=sum(int(rows[int(index)].learned.sum()) for index in indices),
    )


def token_log_probs(model: Any, batch: MicroBatch) -> Tensor:
    """Return the log-probability of each learned token, fp32 [P].

    The vocabulary projection, the largest one of a small model, runs only at the positions that
    predict a learned token in some row.
    """
    kept, columns = torch.unique(batch.times, return_inverse=True)
    logits = model(input_ids=batch.input_ids, logits_to_keep=kept, use_cache=False).logits
    return -F.cross_entropy(logits[batch.rows, columns].float(), batch.targets, reduction="none")
