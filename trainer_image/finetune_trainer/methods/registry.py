"""Methods by name: `methods/NAME/method.py` holds a METHOD, imported once it is asked for."""

from __future__ import annotations

from importlib import import_module

from finetune_contract.recipe import MethodType
from finetune_trainer.methods.base import Method

MODULES = {name: f"finetune_trainer.methods.{name.lower()}.method" for name in MethodType}


def method_of(name: MethodType) -> Method:
    """Return a method; its module needs no torch."""
    method: Method = import_module(MODULES[name]).METHOD
    return method
