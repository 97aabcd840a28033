"""What is optimised: one small pure file per method, and the registry that names them.

An objective turns the log-probabilities of learned tokens into a loss summed over tokens; the
engine divides it by the normaliser of the whole optimizer step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from finetune_contract.recipe import MethodType, Recipe
from finetune_trainer.batch.micro_batch import MicroBatch
from finetune_trainer.methods.grpo.objective import GrpoObjective
from finetune_trainer.methods.sft.objective import SupervisedObjective


class Objective(Protocol):
    """A method's loss. `stats` names what it counts beside the loss.

    With `entropy` the engine counts one more: the policy's entropy, summed over learned tokens.
    """

    stats: tuple[str, ...]
    entropy: bool

    def __call__(self, log_probs: Tensor, batch: MicroBatch) -> tuple[Tensor, Tensor]:
        """Return the summed loss, a scalar, and the sums of the stats, fp32 [S], detached.

        `log_probs` is fp32 [P], of the micro-batch's learned tokens.
        """


def _grpo(recipe: Recipe) -> Objective:
    assert recipe.grpo is not None, "the recipe sees to it"
    return GrpoObjective(recipe.grpo)


METHODS: dict[MethodType, Callable[[Recipe], Objective]] = {
    MethodType.SFT: lambda recipe: SupervisedObjective(),
    MethodType.GRPO: _grpo,
}


def objective(recipe: Recipe) -> Objective:
    """Return the objective of a recipe's method."""
    return METHODS[recipe.method](recipe)
