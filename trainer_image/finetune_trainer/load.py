"""The model to train: base loaded, adapters put on it, coverage counted."""

from __future__ import annotations

from pathlib import Path

from finetune_contract.recipe import Recipe
from finetune_trainer.initial import load_initial
from finetune_trainer.lora import Adapted, adapt
from finetune_trainer.model import load_model
from finetune_trainer.quantization import keep_layout, loading_options
from finetune_trainer.roles import map_roles


def load_adapted(recipe: Recipe, directory: Path, initial: Path | None = None) -> Adapted:
    """Return the model; the directory holds configuration and weights.

    `initial` is the weights file of the published adapter to go on from, if there is one.
    """
    base = load_model(directory, recipe.training.precision, **loading_options(recipe))
    keep_layout(base)
    adapted = adapt(base, recipe.lora, map_roles(base), recipe.training.seed)
    if initial is not None:
        load_initial(adapted.model, initial)
    return adapted
