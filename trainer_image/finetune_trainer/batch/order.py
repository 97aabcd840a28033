"""Random orders that are computed, not stored: entry i of a permutation of any number of rows.

A Feistel network permutes a domain of a power of two; entries that fall outside the rows are
permuted again until they fall inside (cycle walking; Black and Rogaway, Ciphers with Arbitrary
Finite Domains, 2002). So any position of any epoch is known at once, in constant memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]

ROUNDS = 8
SMALLEST_BITS = 4  # of the domain; with fewer, few orders could be drawn


class Permutation:
    """A permutation of 0..rows-1, drawn by a key."""

    def __init__(self, rows: int, key: Sequence[int]) -> None:
        bits = max(SMALLEST_BITS, (rows - 1).bit_length())
        self._rows = np.uint64(rows)
        self._high = np.uint64(bits // 2)
        self._low = np.uint64(bits - bits // 2)
        self._keys = _round_keys(tuple(key))

    def __call__(self, entries: Indices) -> Indices:
        """Return the values at some entries, int64 [N] -> int64 [N]."""
        values = self._network(entries.astype(np.uint64))
        while (outside := values >= self._rows).any():
            values[outside] = self._network(values[outside])
        return values.astype(np.int64)

    def _network(self, words: Words) -> Words:
        """Permute the domain; the two halves may differ in width, so they swap widths as well."""
        low_bits, high_bits = self._low, self._high
        for key in self._keys:
            right = words & ((np.uint64(1) << low_bits) - np.uint64(1))
            left = words >> low_bits
            left ^= _mix(right ^ key) & ((np.uint64(1) << high_bits) - np.uint64(1))
            words = (right << high_bits) | left
            low_bits, high_bits = high_bits, low_bits
        return words


def _mix(words: Words) -> Words:
    """Scramble 64 bits: the finaliser of SplitMix64 (Steele, Lea and Flood, 2014)."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


@lru_cache(maxsize=1024)
def _round_keys(key: tuple[int, ...]) -> tuple[np.uint64, ...]:
    return tuple(np.random.SeedSequence(key).generate_state(ROUNDS, np.uint64))
