"""Supervised fine-tuning: the negative log-likelihood of the learned tokens."""

from __future__ import annotations

from torch import Tensor


def loss_sum(log_probs: Tensor, weights: Tensor) -> Tensor:
    """Return the scalar sum of -weights * log_probs, both fp32 [P]; a weight is 1, padding's 0."""
    return -(weights * log_probs).sum()
