"""Attention of completions that share prompts: a prompt's keys and values are kept and read once.

Registered with transformers under `NAME`. The prompts of a batch are read packed, kept apart by
segments; then each row adds a token at a time. A prompt's scores are one product for all its
completions (arXiv 2402.05099); no mask of padding reaches the model, and no cache of transformers.
The store travels as a keyword argument of the model's forward pass to every layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name everyone knows
from torch import Tensor
from transformers import AttentionInterface

from finetune_trainer.model.attention import Segments, segmented_attention

NAME = "finetune_shared_prefix"

Pair = tuple[Tensor, Tensor]  # keys and values


class SharedPrefixes:
    """Keys and values of B prompts, and of the t tokens that each of R rows has after its prompt.

    `prompts` tells each row's prompt and ascends; rows number from 0. `most` bounds t.
    """

    growth = 128  # tokens for which room is made at once

    def __init__(
        self, lengths: Sequence[int], prompts: Sequence[int], most: int, device: torch.device
    ) -> None:
        self._most = most
        self._lengths = torch.tensor(lengths, device=device)
        self._longest = max(lengths)
        self._prefixes: dict[int, Pair] = {}  # by layer: [B, heads, longest, width]
        self._added: dict[int, Pair] = {}  # by layer: [R, heads, room, width]
        self._first = 0  # of the prompts that are being read
        self._reads: list[int] = []  # their lengths
        self._step = 0  # t
        self._place(torch.tensor(prompts, device=device))

    @property
    def positions(self) -> Tensor:
        """Return the position, int64 [R, 1], of the token that each row gets next."""
        return (self._lengths[self._prompt] + self._step)[:, None]

    @property
    def kept_bytes(self) -> int:
        """Return the bytes of keys and values."""
        pairs = [*self._prefixes.values(), *self._added.values()]
        return sum(part.nbytes for pair in pairs for part in pair)

    def read(self, first: int, lengths: Sequence[int]) -> None:
        """Take what the next forward pass has for prompts `first` and on, packed."""
        self._first, self._reads = first, list(lengths)

    def advance(self) -> None:
        """Go on to the next token, after a forward pass with one of each row."""
        self._step += 1
        self._seen.clear()

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these, ascending, and the prompts that have none left."""
        for layer, (keys, values) in self._added.items():
            self._added[layer] = (keys[rows], values[rows])  # one by one: both are in memory
        left, prompt = torch.unique_consecutive(self._prompt[rows], return_inverse=True)
        if len(left) < len(self._lengths):
            self._lengths = self._lengths[left]
            longest = self._longest = int(self._lengths.max())
            for layer, (keys, values) in self._prefixes.items():
                self._prefixes[layer] = (keys[left, :, :longest], values[left, :, :longest])
        self._place(prompt)

    def take_prompts(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Keep the keys and values, [1, heads, T, width], of the prompts that are being read."""
        for part, whole in zip((keys, values), self._prefix(layer, keys, values), strict=True):
            for offset, row in enumerate(torch.split(part[0], self._reads, dim=1)):
                whole[self._first + offset, :, : row.shape[1]] = row

    def add(self, layer: int, key: Tensor, value: Tensor) -> Pair:
        """Keep a token's, [R, heads, 1, width]; return those of all tokens after the prompts."""
        if layer not in self._added:
            self._added[layer] = (key[:, :, :0], value[:, :, :0])
        keys, values = self._added[layer]
        if keys.shape[2] == self._step:
            growth = min(self.growth, self._most - self._step)
            keys, values = (F.pad(part, (0, 0, 0, growth)) for part in (keys, values))
            self._added[layer] = (keys, values)
        keys[:, :, self._step] = key[:, :, 0]
        values[:, :, self._step] = value[:, :, 0]
        return keys[:, :, : self._step + 1], values[:, :, : self._step + 1]

    def prefix(self, layer: int) -> Pair:
        """Return the prompts', padded behind their ends."""
        return self._prefixes[layer]

    def by_prompt(self, rows: Tensor) -> Tensor:
        """Return rows [R, heads, n, X] as [B, heads, most of a prompt * n, X], with rests."""
        return rows[self._slots].transpose(1, 2).flatten(2, 3)

    def by_row(self, grouped: Tensor) -> Tensor:
        """Return what `by_prompt` made, with another X, as rows again."""
        prompts, most = self._slots.shape
        split = grouped.reshape(prompts, grouped.shape[1], most, -1, grouped.shape[3])
        return split.transpose(1, 2)[self._prompt, self._slot]

    def seen(self, window: int | None) -> Tensor:
        """Return which keys the rows' next tokens see, bool [R, 1, 1, longest + t + 1]."""
        if window not in self._seen:
            lengths, device = self._lengths[self._prompt][:, None], self._lengths.device
            before = torch.arange(self._longest, device=device)
            after = torch.arange(self._step + 1, device=device)
            visible = before < lengths
            recent = (after > self._step - window) if window else torch.ones_like(after).bool()
            if window:
                visible = visible & (before > lengths + self._step - window)
            both = torch.cat([visible, recent.expand(len(lengths), -1)], dim=1)
            self._seen[window] = both[:, None, None]
        return self._seen[window]

    def _prefix(self, layer: int, keys: Tensor, values: Tensor) -> Pair:
        if layer not in self._prefixes:
            shape = len(self._lengths), keys.shape[1], self._longest
            self._prefixes[layer] = (
                keys.new_zeros(*shape, keys.shape[-1]),
                values.new_zeros(*shape, values.shape[-1]),
            )
        return self._prefixes[layer]

    def _place(self, prompt: Tensor) -> None:
        """Give each row a slot of its prompt."""
        self._seen: dict[int | None, Tensor] = {}  # by window, of this token
        self._prompt = prompt  # int64 [R]
        counts = prompt.bincount(minlength=len(self._lengths))
        rows = torch.arange(len(prompt), device=prompt.device)
        self._slot = rows - (counts.cumsum(0) - counts)[prompt]
        most = int(counts.max())
        self._slots = prompt.new_zeros(len(counts), most)  # the row of each; 0 where there is none
        self._slots[prompt, self._slot] = rows


def shared_prefix_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    segments: Segments | None = None,
    prefixes: SharedPrefixes | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Return the attention output, [B, T, heads, value width], of queries [B, heads, T, width].

    With `segments` prompts are read; without, each row's next token.
    """
    assert prefixes is not None
    layer: int = module.layer_idx  # type: ignore[assignment]
    if segments is not None:
        prefixes.take_prompts(layer, key, value)
        return segmented_attention(
            module,
            *(query, key, value, attention_mask),
            scaling=scaling,
            sliding_window=sliding_window,
            softcap=softcap,
            segments=segments,
        )
    keys, values = prefixes.add(layer, key, value)
    first_keys, first_values = prefixes.prefix(layer)
    # [R, heads of keys, queries of each, width]
    query = query.reshape(len(query), key.shape[1], -1, query.shape[3])
    query = query * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    before = prefixes.by_row(prefixes.by_prompt(query) @ first_keys.transpose(2, 3))
    scores = torch.cat([before, query @ keys.transpose(2, 3)], dim=-1).float()
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    scores = scores.masked_fill(~prefixes.seen(sliding_window), -torch.inf)
    weights = scores.softmax(-1).to(query.dtype)
    on_prompt, on_rest = torch.split(weights, [first_keys.shape[2], keys.shape[2]], dim=-1)
    out = prefixes.by_row(prefixes.by_prompt(on_prompt) @ first_values) + on_rest @ values
    return out.flatten(1, 2)[:, None], None


AttentionInterface.register(NAME, shared_prefix_attention)
