"""Tiny models with adapters on them, and how to disturb and to compare them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finetune_contract.artifact import ModelIdentity
from finetune_contract.recipe import LoraRecipe, Precision

IDENTITY = ModelIdentity(uri="hf://org/name", revision="c0ffee")


def adapted(
    directory: Path,
    targets: Sequence[str] = ("Attention", "MLP"),
    *,
    precision: Precision = Precision.FP32,
    seed: int = 3,
    **lora: Any,
) -> Any:
    """Return the `Adapted` of a model directory."""
    from finetune_trainer.adapter.lora import adapt
    from finetune_trainer.adapter.roles import map_roles
    from finetune_trainer.model.base import load_model

    recipe = LoraRecipe(rank=4, targets=targets, **lora)
    model = load_model(directory, precision)
    return adapt(model, recipe, map_roles(model), seed)


def disturb(model: Any, size: float = 0.01) -> Any:
    """Move every trainable parameter at random, as training would, and return the model."""
    import torch

    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=size)
    return model.eval()


def logits(model: Any) -> Any:
    """Return the logits [2, 24, vocabulary] of fixed tokens."""
    import torch

    tokens = torch.randint(0, 259, (2, 24), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        return model.eval()(input_ids=tokens).logits


def save(model: Any, directory: Path, identity: ModelIdentity = IDENTITY) -> Path:
    """Write the adapter as it is published and return its directory."""
    from finetune_trainer.adapter.export import save_adapter

    directory.mkdir(parents=True)
    save_adapter(model, identity, directory)
    return directory
