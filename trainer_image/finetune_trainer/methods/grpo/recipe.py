"""What a recipe says of GRPO."""

from __future__ import annotations

from finetune_contract.grpo import GrpoRecipe
from finetune_contract.recipe import Recipe


def grpo_of(recipe: Recipe) -> GrpoRecipe:
    """Return the method's own part of a recipe."""
    assert recipe.grpo is not None, "the recipe sees to it"
    return recipe.grpo
