"""Attention over prompts that are kept once is attention over each row's own tokens."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from finetune_trainer.model.attention import Segments
from finetune_trainer.rollout.prefixed import SharedPrefixes, shared_prefix_attention
from support.models.tolerance import assert_close

CPU = torch.device("cpu")
LENGTHS = [5, 2, 7, 4]
OWNERS = [0, 0, 1, 2, 2, 2, 3]
KEPT = {2: [1, 3, 5, 6], 4: [0, 2, 3], 5: [1]}  # by the step after which rows are dropped
MOST = 7
HEADS, KEY_HEADS, WIDTH, VALUE_WIDTH = 4, 2, 8, 6
LAYERS = (3, 0)
SUMMED = WIDTH + max(LENGTHS) + MOST  # a score's products, and keys
LARGEST = 50.0  # the scores, whose last digit is a share of what is attended to


@dataclass(frozen=True)
class Options:
    """How a model attends."""

    scaling: float | None = None
    sliding_window: int | None = None
    softcap: float | None = None


def attended(query: Tensor, keys: Tensor, values: Tensor, options: Options) -> Tensor:
    """Return [heads, value width] of a query [heads, width] at the last of the keys' places."""
    window = options.sliding_window or keys.shape[1]
    scale = WIDTH**-0.5 if options.scaling is None else options.scaling
    out = []
    for head in range(HEADS):
        mine = head // (HEADS // KEY_HEADS)
        scores = keys[mine, -window:] @ query[head] * scale
        if options.softcap is not None:
            scores = options.softcap * (scores / options.softcap).tanh()
        out.append(scores.softmax(0) @ values[mine, -window:])
    return torch.stack(out)


def states(rows: int, tokens: int, generator: torch.Generator) -> list[Tensor]:
    """Return queries, keys and values."""
    shapes = ((HEADS, WIDTH), (KEY_HEADS, WIDTH), (KEY_HEADS, VALUE_WIDTH))
    return [
        2 * torch.randn(rows, heads, tokens, width, generator=generator) for heads, width in shapes
    ]


def growing(tokens: int) -> SharedPrefixes:
    """Return the store of the prompts, which makes room for so many tokens at once."""

    class Growing(SharedPrefixes):
        growth = tokens

    return Growing(LENGTHS, OWNERS, MOST, CPU)


def attend(
    shared: SharedPrefixes, layer: int, given: list[Tensor], options: Options, **more: Any
) -> Tensor:
    module: Any = SimpleNamespace(layer_idx=layer)
    found, _ = shared_prefix_attention(
        module, *given, None, prefixes=shared, **vars(options), **more
    )
    return found


def read(
    shared: SharedPrefixes, layer: int, generator: torch.Generator, options: Options
) -> list[list[Tensor]]:
    """Read the prompts in two passes; return keys and values of each row's own."""
    prompts = []
    for first, lengths in ((0, LENGTHS[:3]), (3, LENGTHS[3:])):
        shared.read(first, lengths)
        given = states(1, sum(lengths), generator)
        segments = Segments.of(tuple(lengths), CPU)
        found = torch.split(attend(shared, layer, given, options, segments=segments)[0], lengths)
        parts = zip(*(torch.split(part[0], lengths, dim=1) for part in given), strict=True)
        for out, (query, keys, values) in zip(found, parts, strict=True):
            for place, row in enumerate(out):
                seen = (keys[:, : place + 1], values[:, : place + 1])
                wanted = attended(query[:, place], *seen, options)
                assert_close(row, wanted, terms=SUMMED, scale=LARGEST)
            prompts.append([keys, values])
    return [prompts[owner] for owner in OWNERS]


@pytest.mark.parametrize(
    "options",
    [
        Options(),
        Options(scaling=0.9),
        Options(sliding_window=3),
        Options(sliding_window=6),
        Options(softcap=1.5),
        Options(scaling=0.7, sliding_window=4, softcap=2.0),
    ],
)
@pytest.mark.parametrize("growth", [1, 3, 128])
def test_a_row_attends_to_its_prompt_and_its_own_tokens(options: Options, growth: int) -> None:
    generator = torch.Generator().manual_seed(5)
    shared = growing(growth)
    own = {layer: read(shared, layer, generator, options) for layer in LAYERS}
    owners = OWNERS
    for step in range(MOST):
        assert shared.positions.tolist() == [[LENGTHS[owner] + step] for owner in owners]
        for layer, rows in own.items():
            query, key, value = states(len(owners), 1, generator)
            found = attend(shared, layer, [query, key, value], options)
            for index, kept in enumerate(rows):
                new = (key[index], value[index])
                kept = rows[index] = [torch.cat(pair, 1) for pair in zip(kept, new, strict=True)]
                wanted = attended(query[index, :, 0], *kept, options)
                assert_close(found[index, 0], wanted, terms=SUMMED, scale=LARGEST)
        shared.advance()
        if left := KEPT.get(step):
            shared.keep(torch.tensor(left))
            owners = [owners[row] for row in left]
            own = {layer: [rows[row] for row in left] for layer, rows in own.items()}


def test_what_is_kept_is_counted_and_goes_with_its_rows() -> None:
    generator = torch.Generator().manual_seed(5)
    shared = growing(2)
    assert shared.kept_bytes == 0
    read(shared, 0, generator, Options())
    token = KEY_HEADS * (WIDTH + VALUE_WIDTH) * 4
    assert shared.kept_bytes == len(LENGTHS) * max(LENGTHS) * token
    _, key, value = states(len(OWNERS), 1, generator)
    for room in (2, 2, 4, 4, 6, 6, MOST):
        shared.add(0, key, value)
        shared.advance()
        assert shared.kept_bytes == (len(LENGTHS) * max(LENGTHS) + len(OWNERS) * room) * token
    shared.keep(torch.tensor([0, 2]))
    assert shared.kept_bytes == (2 * max(LENGTHS[:2]) + 2 * MOST) * token
