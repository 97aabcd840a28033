"""Ways to run a causal language model over prompts, then token by token over their completions.

`SharedDecoder` is for the architectures whose attention the trainer replaces anyway; `PlainDecoder`
asks nothing of a model but what transformers' `generate` does. Neither is for autograd.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import DynamicCache

from finetune_trainer.memory.formula import READ_TOKENS
from finetune_trainer.model.attention import Segments
from finetune_trainer.rollout.prefixed import NAME, SharedPrefixes

Prompts = Sequence[npt.NDArray[np.int32]]


class SharedDecoder:
    """Keeps a prompt's keys and values once for all of its rows; prompts may differ in length.

    A row adds at most `most` tokens.
    """

    read_tokens = READ_TOKENS  # of prompts in one forward pass, if none is longer

    def __init__(
        self, causal: Any, prompts: Prompts, rows: Sequence[int], most: int, device: torch.device
    ) -> None:
        self._causal = causal
        self._device = device
        self._prompts = prompts
        self._lengths = [len(prompt) for prompt in prompts]
        self._prefixes = SharedPrefixes(self._lengths, rows, most, device)

    def read(self) -> Iterator[Tensor]:
        """Read the prompts; yield the logits [b, V] after the next of them per forward pass."""
        for first, end in pairwise(_bounds(self._lengths, self.read_tokens)):
            lengths = self._lengths[first:end]
            self._prefixes.read(first, lengths)
            device = self._device
            ids = torch.from_numpy(np.concatenate(self._prompts[first:end])).to(device)
            positions = torch.cat([torch.arange(n, device=device) for n in lengths])
            ends = torch.tensor(lengths, device=device).cumsum(0) - 1
            yield self._run(
                ids.long()[None], positions[None], ends, Segments.of(tuple(lengths), device)
            )[0]

    def step(self, tokens: Tensor) -> Tensor:
        """Append a token, int64 [R], to each row; return the logits [R, V] after them."""
        logits = self._run(tokens[:, None], self._prefixes.positions, 1, None)
        self._prefixes.advance()
        return logits[:, 0]

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these, ascending; they are numbered anew."""
        self._prefixes.keep(rows)

    @property
    def kept_bytes(self) -> int:
        """Return the bytes of keys and values so far."""
        return self._prefixes.kept_bytes

    def _run(
        self, ids: Tensor, positions: Tensor, places: Tensor | int, segments: Segments | None
    ) -> Tensor:
        logits: Tensor = self._causal(
            input_ids=ids,
            position_ids=positions,
            logits_to_keep=places,
            use_cache=False,
            segments=segments,
            prefixes=self._prefixes,
        ).logits
        return logits


class PlainDecoder:
    """Uses the model's own attention and cache; prompts are of one length, so none is padded.

    They are read in one forward pass.
    """

    def __init__(
        self, causal: Any, prompts: Prompts, rows: Sequence[int], device: torch.device
    ) -> None:
        self._causal = causal
        self._device = device
        self._ids = torch.from_numpy(np.stack(prompts)).long().to(device)
        self._rows = torch.tensor(rows, device=device)
        self._cache = DynamicCache(config=causal.config)
        # A model that does not know the option may take it all the same, and return all logits.
        known = "logits_to_keep" in signature(causal.forward).parameters
        self._options = {"logits_to_keep": 1} if known else {}

    def read(self) -> Iterator[Tensor]:
        """Read the prompts; yield the logits [b, V] after the next of them per forward pass."""
        logits = self._run(self._ids)
        self.keep(self._rows)
        yield logits

    def step(self, tokens: Tensor) -> Tensor:
        """Append a token, int64 [R], to each row; return the logits [R, V] after them."""
        return self._run(tokens[:, None])

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these, ascending; they are numbered anew."""
        # Not `batch_select_indices`, which the layers of linear attention lack.
        self._cache.reorder_cache(rows)

    @property
    def kept_bytes(self) -> int:
        """Return the bytes of keys, values and other states so far."""
        return sum(_tensor_bytes(vars(layer)) for layer in self._cache.layers)

    def _run(self, ids: Tensor) -> Tensor:
        out = self._causal(
            input_ids=ids, past_key_values=self._cache, use_cache=True, **self._options
        )
        logits: Tensor = out.logits[:, -1]
        return logits


Decoder = SharedDecoder | PlainDecoder  # R rows, of which several may begin with one prompt


@contextmanager
def attention_for(causal: Any, name: str = NAME) -> Iterator[None]:
    """Let a model attend as named, and then as before."""
    before = causal.config._attn_implementation
    causal.set_attn_implementation(name)
    try:
        yield
    finally:
        causal.set_attn_implementation(before)


def _tensor_bytes(value: Any) -> int:
    """Return the bytes of the tensors in what a cache's layer has, some of them in dicts."""
    if isinstance(value, dict):
        return sum(map(_tensor_bytes, value.values()))
    return value.nbytes if isinstance(value, Tensor) else 0


def _bounds(lengths: Sequence[int], most: int) -> list[int]:
    """Return where forward passes over prompts of these lengths begin, and the end."""
    bounds, tokens = [0], 0
    for index, length in enumerate(lengths):
        if tokens and tokens + length > most:
            bounds.append(index)
            tokens = 0
        tokens += length
    return [*bounds, len(lengths)]
