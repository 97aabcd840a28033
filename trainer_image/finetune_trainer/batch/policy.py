"""What a policy-gradient loss knows of each learned token beside its probability now."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class PolicyTerms:
    """The P learned tokens of a micro-batch, which belong to S completions, none of them split."""

    advantages: Tensor  # fp32 [P], of the token's completion
    behaviour: Tensor | None  # fp32 [P], log-probabilities when it was drawn; None: as they are now
    reference: Tensor | None  # fp32 [P], log-probabilities under the reference; None without KL
    completions: Tensor  # int64 [P], which of the S
    lengths: Tensor  # fp32 [S], learned tokens
