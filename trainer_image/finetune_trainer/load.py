"""The model to train: base loaded, adapters put on it, coverage counted."""

from __future__ import annotations

from pathlib import Path

from finetune_contract.recipe import Recipe
from finetune_trainer.lora import Adapted, adapt
from finetune_trainer.model import load_model
from finetune_trainer.roles import map_roles


def load_adapted(recipe: Recipe, directory: Path) -> Adapted:
    """Return the model; the directory holds configuration and weights."""
    base = load_model(directory, recipe.training.precision)
    return adapt(base, recipe.lora, map_roles(base), recipe.training.seed)
