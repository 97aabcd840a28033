"""GRPO as the engine takes it: the token losses of its kin, and what each is divided by.

With the ratio r of new to old probability and the advantage A, a token's loss is
-min(r A, clip(r, 1 - low, 1 + high) A). GSPO takes the geometric mean of a completion's ratios for
r; CISPO's is -min(r, high) A log p with no gradient through the ratio, so that no token's gradient
is lost.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from finetune_contract.grpo import GrpoLoss, GrpoRecipe
from finetune_trainer.batch.micro_batch import MicroBatch, PolicyTerms

STATS = ("tokens", "clipped_low", "clipped_high", "kl")
BY_COMPLETION = (GrpoLoss.GRPO, GrpoLoss.GSPO)  # a mean over tokens, then over completions


class GrpoObjective:
    """The policy loss plus `beta` times the KL divergence. Counts are over learned tokens."""

    stats: tuple[str, ...] = STATS
    entropy = True

    def __init__(self, recipe: GrpoRecipe) -> None:
        self._recipe = recipe
        self.temperature = recipe.sampling.temperature

    def __call__(self, log_probs: Tensor, batch: MicroBatch) -> tuple[Tensor, Tensor]:
        """Return the summed loss, and the sums of the stats."""
        terms, recipe = batch.policy, self._recipe
        if terms is None:  # only keeps the ranks in step
            return (batch.weights * log_probs).sum(), log_probs.new_zeros(len(STATS))
        policy = token_loss(log_probs, terms, recipe)
        loss, divergence = policy.loss, torch.zeros_like(log_probs)
        if terms.reference is not None:
            divergence = kl(log_probs, terms.reference)
            loss = loss + recipe.beta * divergence
        counts = (torch.ones_like(log_probs), policy.clipped_low, policy.clipped_high, divergence)
        stats = torch.stack([count.detach().sum() for count in counts])
        return (loss * token_weights(terms, recipe)).sum(), stats


class TokenLoss(NamedTuple):
    """Per learned token [P]: the loss, and whether its ratio was clipped below or above."""

    loss: Tensor
    clipped_low: Tensor
    clipped_high: Tensor


def token_loss(log_probs: Tensor, terms: PolicyTerms, recipe: GrpoRecipe) -> TokenLoss:
    """Return the policy loss of each token; the KL term is not in it."""
    low, high = recipe.clips
    old = log_probs.detach() if terms.behaviour is None else terms.behaviour
    log_ratio, advantages = log_probs - old, terms.advantages
    if recipe.loss is GrpoLoss.CISPO:
        ratio = log_ratio.detach().exp()
        loss = -ratio.clamp(max=high) * advantages * log_probs
        return TokenLoss(loss, torch.zeros_like(ratio) > 0, (ratio > high) & (advantages > 0))
    if recipe.loss is GrpoLoss.GSPO:
        log_ratio = _mean_by_completion(log_ratio, terms)[terms.completions]
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1 - low, 1 + high)
    loss = -torch.minimum(ratio * advantages, clipped * advantages)
    return TokenLoss(
        loss, (ratio < 1 - low) & (advantages < 0), (ratio > 1 + high) & (advantages > 0)
    )


def kl(log_probs: Tensor, reference: Tensor) -> Tensor:
    """Return the k3 estimate [P] of KL(policy || reference), never negative."""
    difference = reference - log_probs
    return torch.expm1(difference) - difference


def token_weights(terms: PolicyTerms, recipe: GrpoRecipe) -> Tensor:
    """Return what each token's loss is multiplied by, [P], before it is divided by `normaliser`."""
    if recipe.loss in BY_COMPLETION:
        return terms.lengths.reciprocal()[terms.completions]
    return torch.ones_like(terms.advantages)


def normaliser(completions: int, tokens: int, recipe: GrpoRecipe) -> float:
    """Return what a step's loss is divided by, of its completions and learned tokens in all.

    At least 1: a step with nothing to learn from has the loss 0.
    """
    if recipe.loss in BY_COMPLETION:
        return max(1, completions)
    if recipe.loss is GrpoLoss.DR_GRPO:
        return max(1, completions) * recipe.sampling.max_tokens
    return max(1, tokens)


def _mean_by_completion(values: Tensor, terms: PolicyTerms) -> Tensor:
    summed = values.new_zeros(len(terms.lengths)).index_add(0, terms.completions, values)
    return summed / terms.lengths
