"""A buffer: one global batch of completions with all that a step needs to learn from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from finetune_trainer.batch.micro_batch import MicroBatch, PolicyTerms
from finetune_trainer.batch.order import Indices
from finetune_trainer.methods.grpo.groups import Group, group_batch
from finetune_trainer.methods.grpo.prompts.dataset import Prompts
from finetune_trainer.step.optimizer_state import Tensors

Floats = npt.NDArray[np.float32]
METRIC = "metric."


@dataclass(frozen=True)
class Buffer:
    """N completions in groups that stand one after the other, T tokens in all; alike on all ranks.

    `learned` tells which of them have a gradient, `kept` which the loss is a mean over.
    """

    index: int  # counted from 0 over the run
    rows: Indices  # int64 [groups], of the prompts in their dataset
    tokens: npt.NDArray[np.int32]  # [T], of the completions one after the other
    lengths: npt.NDArray[np.int64]  # [N]
    advantages: npt.NDArray[np.float64]  # [N]
    kept: npt.NDArray[np.bool_]  # [N]
    learned: npt.NDArray[np.bool_]  # [N]
    nothing: str = ""  # why there is nothing to learn from, and the remedy; "" where there is
    behaviour: Floats | None = None  # [T], log-probabilities when drawn; None: one step per buffer
    reference: Floats | None = None  # [T], likewise under the reference; None without KL
    metrics: dict[str, float] = field(default_factory=dict)

    @property
    def group_size(self) -> int:
        """Return the completions of one prompt."""
        return len(self.lengths) // len(self.rows)

    def span(self, completion: int) -> slice:
        """Return where a completion's tokens stand."""
        end = int(self._ends[completion])
        return slice(end - int(self.lengths[completion]), end)

    @cached_property
    def _ends(self) -> npt.NDArray[np.int64]:
        return np.cumsum(self.lengths)

    def tensors(self) -> Tensors:
        """Return it for a checkpoint."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        found = {
            name: torch.as_tensor(np.asarray(value))
            for name, value in values.items()
            if name not in ("metrics", "nothing") and value is not None
        }
        found["nothing"] = torch.tensor(list(self.nothing.encode()), dtype=torch.uint8)
        numbers = self.metrics.items()
        return found | {METRIC + n: torch.tensor(v, dtype=torch.float64) for n, v in numbers}

    @classmethod
    def of(cls, tensors: Tensors) -> Buffer:
        """Return what `tensors` made them of."""
        values: dict[str, Any] = {
            one.name: tensors[one.name].numpy() for one in fields(cls) if one.name in tensors
        }
        told = {"index": int(values["index"]), "nothing": values["nothing"].tobytes().decode()}
        metrics = {
            name.removeprefix(METRIC): float(value)
            for name, value in tensors.items()
            if name.startswith(METRIC)
        }
        return cls(**{**values, **told, "metrics": metrics})


def deal_groups(buffer: Buffer, *, size: int, world: int, passes: int) -> list[list[Indices]]:
    """Return the completions of each rank's micro-batches, by pass and rank; some hold none.

    A micro-batch holds at most `size`. A group stays in one wherever it fits, so that its prompt
    may be computed once; in each pass the ranks get the next longest ones.
    """
    groups = np.arange(len(buffer.lengths)).reshape(len(buffer.rows), -1)
    pieces = [
        whole[start : start + size]
        for group in groups
        if len(whole := group[buffer.learned[group]])
        for start in range(0, len(whole), size)
    ]
    loads = _packed(pieces, size)
    if len(loads) > world * passes:  # whole groups leave too much room unused
        flat = np.concatenate(pieces)
        loads = [flat[start : start + size] for start in range(0, len(flat), size)]
    loads.sort(key=lambda load: -int(buffer.lengths[load].sum()))
    empty = np.zeros(0, dtype=np.int64)
    loads += [empty] * (world * passes - len(loads))
    return [loads[start : start + world] for start in range(0, len(loads), world)]


def splits_groups(shares: Sequence[Sequence[Indices]], group_size: int) -> bool:
    """Return whether a group's completions lie in several micro-batches."""
    groups = [group for by_rank in shares for load in by_rank for group in {*(load // group_size)}]
    return len(groups) > len(set(groups))


def _packed(pieces: Sequence[Indices], size: int) -> list[Indices]:
    """Put pieces into loads of at most `size`, each into the first that has room."""
    loads: list[list[Indices]] = []
    room: list[int] = []
    for piece in sorted(pieces, key=len, reverse=True):
        at = next((i for i, free in enumerate(room) if free >= len(piece)), len(loads))
        if at == len(loads):
            loads.append([])
            room.append(size)
        loads[at].append(piece)
        room[at] -= len(piece)
    return [np.concatenate(load) for load in loads]


def micro_batch(
    buffer: Buffer, completions: Indices, prompts: Prompts, device: torch.device, *, packed: bool
) -> MicroBatch:
    """Return the tensors of some completions; packed, a group's prompt is computed once."""
    if not len(completions):
        return MicroBatch.idle(device, packed=packed)
    spans = [buffer.span(int(completion)) for completion in completions]
    groups = [
        Group(
            prompts.tokens(int(buffer.rows[group])),
            tuple(buffer.tokens[buffer.span(int(completion))] for completion in own),
        )
        for group, own in groupby(completions, key=lambda one: int(one) // buffer.group_size)
    ]
    lengths = buffer.lengths[completions]

    def of_tokens(values: Floats | None) -> Tensor | None:
        if values is None:
            return None
        return torch.from_numpy(np.concatenate([values[span] for span in spans])).to(device)

    advantages = np.repeat(buffer.advantages[completions], lengths).astype(np.float32)
    which = np.repeat(np.arange(len(completions)), lengths)
    policy = PolicyTerms(
        advantages=torch.from_numpy(advantages).to(device),
        behaviour=of_tokens(buffer.behaviour),
        reference=of_tokens(buffer.reference),
        completions=torch.from_numpy(which).to(device),
        lengths=torch.from_numpy(lengths.astype(np.float32)).to(device),
    )
    return replace(group_batch(groups, device, packed=packed), policy=policy)


def used_passes(shares: Sequence[Sequence[Indices]]) -> int:
    """Return how many passes hold a completion on any rank: the others learn nothing."""
    return sum(any(len(load) for load in by_rank) for by_rank in shares)
