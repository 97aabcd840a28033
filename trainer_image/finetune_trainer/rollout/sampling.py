"""Inverse-CDF sampling with noise of its own for every token.

A token is a function of its logits, its request's key, its sample's index and its place in the
completion: who else is in a batch, and which rank draws it, does not matter.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812 - the name everyone knows
from torch import Tensor

from finetune_contract.grpo import Sampling

BLOCK = 512  # probabilities that are summed up at once
CHUNK = 2**28  # bytes of the logits in fp64 that are turned into tokens at once


def uniform_noise(
    seed: int, key: Sequence[int], sample: int, count: int
) -> npt.NDArray[np.float64]:
    """Return a uniform number in [0, 1) for each of a completion's first `count` tokens.

    The generator is counter-based (Philox, Salmon et al., SC 2011); the first numbers are the same
    whatever the count.
    """
    return np.random.Generator(np.random.Philox(_sequence(seed, key, sample))).random(count)


def sample_seed(seed: int, key: Sequence[int], sample: int) -> int:
    """Return a seed below 2^32 of a completion, for samplers that have noise of their own."""
    return int(_sequence(seed, key, sample).generate_state(1)[0])


def draw_tokens(logits: Tensor, noise: Tensor, sampling: Sampling, chunk: int = CHUNK) -> Tensor:
    """Return a token, int64 [R], of each row's distribution.

    `logits` are [R, V]; `noise` fp64 [R], uniform in [0, 1). Temperature comes first, then top-k,
    then top-p of what is left; top-k keeps all that tie with the k-th.
    """
    rows = max(1, chunk // (logits.shape[1] * torch.float64.itemsize))
    chunks = zip(torch.split(logits, rows), torch.split(noise, rows), strict=True)
    return torch.cat([_draw(part, numbers, sampling) for part, numbers in chunks])


def probabilities(logits: Tensor, sampling: Sampling) -> Tensor:
    """Return the distributions that tokens are drawn from, fp64 [R, V]."""
    scaled = logits.double() / sampling.temperature
    if 0 < sampling.top_k < scaled.shape[1]:
        kth = scaled.topk(sampling.top_k).values[:, -1:]
        scaled = scaled.masked_fill(scaled < kth, -torch.inf)
    found = scaled.softmax(-1)
    return found if sampling.top_p == 1 else _nucleus(found, sampling.top_p)


def _sequence(seed: int, key: Sequence[int], sample: int) -> np.random.SeedSequence:
    # With the key's length in it, so that no key goes on where another one's sample begins.
    return np.random.SeedSequence(seed, spawn_key=(len(key), *key, sample))


def _draw(logits: Tensor, noise: Tensor, sampling: Sampling) -> Tensor:
    weights = probabilities(logits, sampling)
    # In the order of the vocabulary: rounding may swap two tokens that are sorted by probability.
    return _first_above(weights, noise * weights.sum(-1))


def _nucleus(weights: Tensor, top_p: float) -> Tensor:
    """Keep the fewest most probable tokens that have `top_p` together (arXiv 1904.09751)."""
    falling, order = weights.sort(descending=True, stable=True)
    last = _first_above(falling, torch.full_like(falling[:, 0], top_p), reached=True)
    beyond = torch.arange(falling.shape[1], device=weights.device) > last[:, None]
    return weights.masked_fill(torch.zeros_like(beyond).scatter(1, order, beyond), 0.0)


def _first_above(weights: Tensor, level: Tensor, *, reached: bool = False) -> Tensor:
    """Return the index, int64 [R], at which the running sum of weights [R, N] exceeds a level [R].

    With `reached` where it equals the level, too. Where rounding lets it do neither, it is the last
    index with a weight. First the block is found, then the place in it: sums by products with
    triangles are deterministic, as torch's running sums on a GPU are not, and most are never made.
    """
    size = min(BLOCK, weights.shape[1])
    blocks = F.pad(weights, (0, -weights.shape[1] % size)).view(len(weights), -1, size)
    sums = blocks.sum(-1)
    block = _first(_running(sums), level, sums, reached=reached)
    rows = torch.arange(len(weights), device=weights.device)
    before = _running(sums)[rows, block] - sums[rows, block]
    inside = blocks[rows, block]
    return block * size + _first(_running(inside), level - before, inside, reached=reached)


def _running(weights: Tensor) -> Tensor:
    size = weights.shape[1]
    triangle = torch.ones(size, size, dtype=weights.dtype, device=weights.device).triu()
    return weights @ triangle


def _first(sums: Tensor, level: Tensor, weights: Tensor, *, reached: bool) -> Tensor:
    short = sums < level[:, None] if reached else sums <= level[:, None]
    places = torch.arange(weights.shape[1], device=weights.device)
    last = torch.where(weights > 0, places, 0).amax(-1)
    # Sums of nothing more are equal, so the first of them has a weight.
    return torch.minimum(short.sum(-1), last)
