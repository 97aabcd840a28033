"""GRPO as the engine takes it: log-probabilities of a micro-batch -> loss and counts."""

from __future__ import annotations

import torch
from torch import Tensor

from finetune_contract.grpo import GrpoRecipe
from finetune_trainer.batch.micro_batch import MicroBatch
from finetune_trainer.methods.grpo.losses import kl, token_loss, token_weights

STATS = ("tokens", "clipped_low", "clipped_high", "kl")


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
