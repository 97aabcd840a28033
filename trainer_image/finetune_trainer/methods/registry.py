"""Methods by name: `methods/NAME/method.py` holds a METHOD, imported once it is asked for."""

from __future__ import annotations

from importlib import import_module

from finetune_contract.recipe import MethodType, Recipe
from finetune_trainer.methods.base import Method

MODULES = {name: f"finetune_trainer.methods.{name.lower()}.method" for name in MethodType}


def method_of(recipe: Recipe) -> Method:
    """Return a recipe's method; its module needs no torch."""
    method: Method = import_module(MODULES[recipe.method]).METHOD
    return method
