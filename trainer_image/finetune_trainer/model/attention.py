"""Attention of packed rows: causal within each segment of a sequence, and blind to every other.

Registered with transformers under `NAME`, it takes the place of a model's own attention. A segment
is attended to by itself, so packed rows can not leak into each other, and no mask of T x T is ever
made. transformers makes no mask at all for an implementation that has no mask function of its own.

`segments` travels as a keyword argument of the model's forward pass to every layer, and so also
into the forward pass that gradient checkpointing does again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from inspect import signature
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name everyone knows
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface

from finetune_trainer.memory.formula import SCORE_BLOCK

try:
    from torch.nn.attention.varlen import varlen_attn

    # As older versions have not.
    FUSED = {"scale", "window_size", "enable_gqa"} <= signature(varlen_attn).parameters.keys()
except ImportError:
    FUSED = False

NAME = "finetune_segmented"
HALVES = (torch.float16, torch.bfloat16)
FLASH_CAPABILITY = (8, 0)  # CUDA compute capability
FLASH_WIDTH = 256  # of a head, at most


@dataclass(frozen=True)
class Segments:
    """Where rows stand in a packed sequence of T tokens; their lengths sum to T.

    With `families`, they come in families: the first of each is a prefix, seen whole by the others
    of its family, which do not see each other.
    """

    lengths: tuple[int, ...]
    bounds: Tensor  # int32 [rows + 1], on the device: 0, and where each row ends
    families: tuple[int, ...] | None = None  # rows of each, prefix included; None: no prefixes

    @classmethod
    def of(
        cls,
        lengths: tuple[int, ...],
        device: torch.device,
        families: tuple[int, ...] | None = None,
    ) -> Segments:
        """Return the segments of rows that stand one after the other."""
        ends = torch.tensor((0, *lengths)).cumsum(0)
        return cls(lengths, ends.to(device, torch.int32), families)


@dataclass(frozen=True)
class _Rule:
    """How scores become weights, in every segment alike."""

    scale: float | None
    dropout: float
    window: int | None  # keys that a query sees, itself the last
    softcap: float | None  # scores become softcap * tanh(scores / softcap)
    block: int = SCORE_BLOCK  # queries whose scores exist at a time, where they must


def segmented_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    segments: Segments | None = None,
    score_block: int = SCORE_BLOCK,
    **options: Any,
) -> tuple[Tensor, None]:
    """Return the attention output, [B, T, heads, value width], of queries [B, heads, T, width].

    Keys and values may have fewer heads (arXiv 2305.13245), values another width than keys. Without
    `segments` each of the B rows is one.
    """
    assert attention_mask is None, "rows are told apart by segments, never by a mask"
    width, value_width = key.shape[-1], value.shape[-1]
    if value_width < width:  # fused kernels want one width; zeros add nothing to the output
        value = F.pad(value, (0, width - value_width))
    rule = _Rule(scaling, dropout, sliding_window, softcap, score_block)
    if segments is not None and segments.families is not None:
        out = _attend_families(query, key, value, segments, rule).transpose(1, 2)
    elif segments is not None and _fused(query, rule):
        out = _varlen(query, key, value, segments, rule)
    elif segments is not None:
        lengths = list(segments.lengths)
        parts = zip(*(torch.split(t, lengths, dim=2) for t in (query, key, value)), strict=True)
        out = torch.cat([_attend(q, k, v, rule) for q, k, v in parts], dim=2).transpose(1, 2)
    else:
        out = _attend(query, key, value, rule).transpose(1, 2)
    return out[..., :value_width].contiguous(), None


def _fused(query: Tensor, rule: _Rule) -> bool:
    return FUSED and _has_flash(query) and rule.softcap is None and rule.dropout == 0


def _has_flash(query: Tensor) -> bool:
    return (
        query.is_cuda
        and query.dtype in HALVES
        and query.shape[-1] <= FLASH_WIDTH
        and torch.cuda.get_device_capability(query.device) >= FLASH_CAPABILITY
    )


def _varlen(query: Tensor, key: Tensor, value: Tensor, segments: Segments, rule: _Rule) -> Tensor:
    longest = max(segments.lengths)
    out = varlen_attn(
        query[0].transpose(0, 1),
        key[0].transpose(0, 1),
        value[0].transpose(0, 1),
        segments.bounds,
        segments.bounds,
        longest,
        longest,
        scale=rule.scale,
        window_size=(-1 if rule.window is None else rule.window - 1, 0),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    assert isinstance(out, Tensor)
    return out[None]


def _attend_families(
    query: Tensor, key: Tensor, value: Tensor, segments: Segments, rule: _Rule
) -> Tensor:
    """Return the attention of packed families, [1, heads, T, value width]."""
    assert segments.families is not None
    rows = [torch.split(t, list(segments.lengths), dim=2) for t in (query, key, value)]
    outputs, first = [], 0
    for size in segments.families:
        queries, keys, values = (list(row[first : first + size]) for row in rows)
        outputs.append(_attend(queries[0], keys[0], values[0], rule))
        if size > 1:
            outputs += _attend_after(queries, keys, values, rule)
        first += size
    return torch.cat(outputs, dim=2)


def _attend_after(
    queries: list[Tensor], keys: list[Tensor], values: list[Tensor], rule: _Rule
) -> list[Tensor]:
    """Return the attention of all rows of a family but the first, which all of them see.

    They are done at once, side by side: what pads the shorter ones stands behind their last query.
    """
    prefix, lengths = keys[0].shape[2], [row.shape[2] for row in queries[1:]]
    longest = max(lengths)

    def stacked(rows: list[Tensor]) -> Tensor:
        return torch.cat([F.pad(row, (0, 0, 0, longest - row.shape[2])) for row in rows[1:]])

    def with_prefix(rows: list[Tensor]) -> Tensor:
        return torch.cat([rows[0].expand(len(lengths), -1, -1, -1), stacked(rows)], dim=2)

    seen = _seen(prefix, prefix + longest, 0, rule.window, queries[0].device)
    block: Callable[..., Tensor] = _sdpa if rule.softcap is None else _softcapped
    # Done again in the backward pass, so that no copy of the prefix is kept.
    out = checkpoint(
        partial(block, rule),
        *(stacked(queries), with_prefix(keys), with_prefix(values), seen),
        use_reentrant=False,
    )
    return [row[None, :, :length] for row, length in zip(out, lengths, strict=True)]


def _attend(query: Tensor, key: Tensor, value: Tensor, rule: _Rule) -> Tensor:
    """Return the causal attention of one segment, [B, heads, T, value width]."""
    length = query.shape[2]
    if rule.softcap is None and (rule.window is None or length <= rule.window):
        return _sdpa(rule, query, key, value, None)
    block: Callable[..., Tensor] = _sdpa if rule.softcap is None else _softcapped
    outputs = []
    for start, end in pairwise([*range(0, length, rule.block), length]):
        first = 0 if rule.window is None else max(0, start - rule.window + 1)
        seen = _seen(start, end, first, rule.window, query.device)
        # Done again in the backward pass, so that a block's scores are never kept.
        outputs.append(
            checkpoint(
                partial(block, rule),
                *(query[:, :, start:end], key[:, :, first:end], value[:, :, first:end], seen),
                use_reentrant=False,
            )
        )
    return torch.cat(outputs, dim=2)


def _seen(start: int, end: int, first: int, window: int | None, device: torch.device) -> Tensor:
    """Return which keys first..end-1 each query start..end-1 sees, bool [queries, keys]."""
    distance = (
        torch.arange(start, end, device=device)[:, None]
        - torch.arange(first, end, device=device)[None]
    )
    return (distance >= 0) if window is None else (distance >= 0) & (distance < window)


def _sdpa(rule: _Rule, query: Tensor, key: Tensor, value: Tensor, seen: Tensor | None) -> Tensor:
    """Return torch's own attention, causal where no `seen` tells more."""
    if query.is_cuda and not (seen is None and _has_flash(query)):
        # Of the other kernels on a GPU only the one that keeps all scores takes fewer heads.
        key, value = _repeated(query, key, value)
    return F.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=seen,
        is_causal=seen is None,
        scale=rule.scale,
        dropout_p=rule.dropout,
        enable_gqa=query.shape[1] != key.shape[1],
    )


def _repeated(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    groups = query.shape[1] // key.shape[1]
    return key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)


def _softcapped(rule: _Rule, query: Tensor, key: Tensor, value: Tensor, seen: Tensor) -> Tensor:
    assert rule.softcap is not None
    key, value = _repeated(query, key, value)
    scale = query.shape[-1] ** -0.5 if rule.scale is None else rule.scale
    scores = rule.softcap * torch.tanh(query @ key.transpose(2, 3) * (scale / rule.softcap))
    weights = scores.float().masked_fill(~seen, -torch.inf).softmax(-1).to(query.dtype)
    return F.dropout(weights, rule.dropout) @ value


AttentionInterface.register(NAME, segmented_attention)
