"""The model to train: base loaded, adapters put on it, coverage counted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_contract.plan import RoleCoverage
from finetune_contract.recipe import Recipe
from finetune_trainer.architectures import module_names
from finetune_trainer.lora import adapt
from finetune_trainer.model import load_model, read_config


@dataclass(frozen=True)
class Adapted:
    """The PEFT model and what its adapters reach."""

    model: Any
    coverage: tuple[RoleCoverage, ...]


def load_adapted(recipe: Recipe, directory: Path) -> Adapted:
    """Return the model; the directory holds configuration and weights."""
    base = load_model(directory, recipe.training.precision)
    modules = module_names(read_config(directory), recipe.lora.targets)
    return Adapted(adapt(base, recipe.lora, modules, recipe.training.seed), ())
