"""How far apart two computations of the same numbers may be: as far as their format rounds.

Kernels add in orders of their own, by processor, layout and number of threads, and so differ in the
last digits. Those are digits of the largest number that was added, not a fixed 1e-6.
"""

from __future__ import annotations

import math
from typing import Any

import torch

# Products that are added up on a token's way through a model of `tiny_models`: three layers, each
# of norms, projections, heads, keys and an MLP of 8 to 48, and the vocabulary projection.
TINY_MODEL = 750
THERE_AND_BACK = 2 * TINY_MODEL  # of its gradients


def rounding(terms: int, dtype: torch.dtype = torch.float32) -> float:
    """Return how far sums of `terms` numbers may be apart, as a share of the largest number.

    Roundings go either way, so they grow with the square root of their number. Four times that is
    left for the worst of many sums, and for what enlarges an error on its way.
    """
    return 4 * torch.finfo(dtype).eps * math.sqrt(terms)


def assert_close(
    found: Any, expected: Any, *, terms: int, scale: float | None = None, what: str = ""
) -> None:
    """Assert that fp32 numbers, as tensors or lists, are the same but for the order of additions.

    `terms` is how many were added to each, `scale` the largest of them: by default the largest of
    those expected, which is too small where larger ones cancel each other.
    """
    found, expected = (torch.as_tensor(one, dtype=torch.float64) for one in (found, expected))
    largest = float(expected.abs().max()) if scale is None else scale
    torch.testing.assert_close(
        found,
        expected,
        atol=largest * rounding(terms),
        rtol=0,
        msg=lambda text: f"{what}\n{text}".lstrip(),
    )
