"""What is asked of Landlock by each ABI that kernels have."""

from __future__ import annotations

import struct

import pytest

from finetune_rewards.confine.landlock import handled


@pytest.mark.parametrize(
    ("version", "words"),
    [
        (1, [0x1FFF]),
        (2, [0x3FFF]),
        (3, [0x7FFF]),
        (4, [0x7FFF, 0b11]),
        (5, [0xFFFF, 0b11]),
        (6, [0xFFFF, 0b11, 0b11]),
        (9, [0xFFFF, 0b11, 0b11]),
    ],
)
def test_all_that_a_kernel_can_refuse_is_refused(version: int, words: list[int]) -> None:
    attributes = handled(version)
    assert list(struct.unpack(f"={len(attributes) // 8}Q", attributes)) == words
