"""Attention over prompts that are kept once is attention over each row's own tokens."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from finetune_trainer.rollout import prefixed
from finetune_trainer.rollout.prefixed import SharedPrefixes, shared_prefix_attention

CPU = torch.device("cpu")
LENGTHS = [5, 2, 7, 4]
OWNERS = [0, 0, 1, 2, 2, 2, 3]
KEPT = {2: [1, 3, 5, 6], 4: [0, 2, 3], 5: [1]}  # by the step after which rows are dropped
MOST = 7
HEADS, KEY_HEADS, WIDTH, VALUE_WIDTH = 4, 2, 8, 6
LAYERS = (3, 0)


@dataclass(frozen=True)
class Options:
    """How a model attends."""

    scaling: float | None = None
    sliding_window: int | None = None
    softcap: float | None = None


class Rows:
    """What every row's tokens have been given, kept without any sharing."""

    def __init__(self, prompts: list[tuple[Tensor, Tensor]], owners: list[int]) -> None:
        self.kept = [prompts[owner] for owner in owners]

    def step(self, query: Tensor, key: Tensor, value: Tensor, options: Options) -> Tensor:
        self.kept = [
            (torch.cat([keys, key[i]], 1), torch.cat([values, value[i]], 1))
            for i, (keys, values) in enumerate(self.kept)
        ]
        rows = [self._row(query[i, :, 0], *self.kept[i], options) for i in range(len(query))]
        return torch.stack(rows)[:, None]

    def _row(self, query: Tensor, keys: Tensor, values: Tensor, options: Options) -> Tensor:
        """Return [heads, value width] of one query [heads, width] at the last place."""
        if options.sliding_window:
            keys, values = keys[:, -options.sliding_window :], values[:, -options.sliding_window :]
        scale = WIDTH**-0.5 if options.scaling is None else options.scaling
        out = []
        for head in range(HEADS):
            mine = head // (HEADS // KEY_HEADS)
            scores = keys[mine] @ query[head] * scale
            if options.softcap is not None:
                scores = options.softcap * (scores / options.softcap).tanh()
            out.append(scores.softmax(0) @ values[mine])
        return torch.stack(out)


def numbers(*shape: int, of: torch.Generator) -> Tensor:
    return 2 * torch.randn(*shape, generator=of)


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
def test_a_row_attends_to_its_prompt_and_its_own_tokens(
    options: Options, growth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefixed, "GROWTH", growth)
    generator = torch.Generator().manual_seed(5)
    shared = SharedPrefixes(LENGTHS, OWNERS, MOST, CPU)
    alone = {layer: Rows(read(shared, layer, generator), OWNERS) for layer in LAYERS}
    owners = OWNERS
    for step in range(MOST):
        expected = [[LENGTHS[owner] + step] for owner in owners]
        assert shared.positions.tolist() == expected
        for layer in LAYERS:
            query = numbers(len(owners), HEADS, 1, WIDTH, of=generator)
            key = numbers(len(owners), KEY_HEADS, 1, WIDTH, of=generator)
            value = numbers(len(owners), KEY_HEADS, 1, VALUE_WIDTH, of=generator)
            found = attend(shared, layer, query, key, value, options=options)
            wanted = alone[layer].step(query, key, value, options)
            torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
        shared.advance()
        if step in KEPT:
            rows = KEPT[step]
            shared.keep(torch.tensor(rows))
            owners = [owners[row] for row in rows]
            for layer in LAYERS:
                alone[layer].kept = [alone[layer].kept[row] for row in rows]


def read(shared: SharedPrefixes, layer: int, generator: torch.Generator) -> list[Any]:
    """Read the prompts in two passes; return what each row keeps of its own."""
    prompts: list[tuple[Tensor, Tensor]] = []
    for first, lengths in ((0, LENGTHS[:3]), (3, LENGTHS[3:])):
        shared.read(first, lengths)
        total = sum(lengths)
        keys = numbers(1, KEY_HEADS, total, WIDTH, of=generator)
        values = numbers(1, KEY_HEADS, total, VALUE_WIDTH, of=generator)
        shared.take_prompts(layer, keys, values)
        parts = (torch.split(part[0], lengths, dim=1) for part in (keys, values))
        prompts += zip(*parts, strict=True)
    return prompts


def attend(shared: SharedPrefixes, layer: int, *states: Tensor, options: Options) -> Tensor:
    module: Any = SimpleNamespace(layer_idx=layer)
    found, _ = shared_prefix_attention(module, *states, None, prefixes=shared, **vars(options))
    return found


def test_what_is_kept_is_counted_and_goes_with_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefixed, "GROWTH", 2)
    generator = torch.Generator().manual_seed(5)
    shared = SharedPrefixes(LENGTHS, OWNERS, MOST, CPU)
    assert shared.kept_bytes == 0
    read(shared, 0, generator)
    of_a_token = KEY_HEADS * (WIDTH + VALUE_WIDTH) * 4
    assert shared.kept_bytes == len(LENGTHS) * max(LENGTHS) * of_a_token
    key = numbers(len(OWNERS), KEY_HEADS, 1, WIDTH, of=generator)
    value = numbers(len(OWNERS), KEY_HEADS, 1, VALUE_WIDTH, of=generator)
    for room in (2, 2, 4, 4, 6, 6, MOST):
        shared.add(0, key, value)
        shared.advance()
        assert shared.kept_bytes == (len(LENGTHS) * max(LENGTHS) + len(OWNERS) * room) * of_a_token
    shared.keep(torch.tensor([0, 2]))
    assert shared.kept_bytes == (2 * max(LENGTHS[:2]) + 2 * MOST) * of_a_token
