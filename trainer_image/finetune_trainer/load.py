"""The model to train: base loaded, adapters put on it, coverage counted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from finetune_contract.layout import ZeroStage
from finetune_contract.recipe import Recipe
from finetune_trainer.initial import load_initial
from finetune_trainer.lora import Adapted, adapt
from finetune_trainer.model import load_model
from finetune_trainer.quantization import keep_layout, loading_options
from finetune_trainer.roles import map_roles


def load_adapted(
    recipe: Recipe,
    directory: Path,
    initial: Path | None = None,
    placement: Mapping[str, Any] | None = None,
) -> Adapted:
    """Return the model; the directory holds configuration and weights.

    `initial` is the weights file of the published adapter to go on from, if there is one;
    `placement` is `placement_on`'s.
    """
    options = {**loading_options(recipe), **(placement or {})}
    base = load_model(directory, recipe.training.precision, **options)
    keep_layout(base)
    adapted = adapt(base, recipe.lora, map_roles(base), recipe.training.seed)
    if initial is not None:
        load_initial(adapted.model, initial)
    return adapted


def placement_on(device: torch.device, stage: ZeroStage) -> dict[str, Any]:
    """Return what transformers' `from_pretrained` must be told to load straight onto a GPU.

    Else each of a node's processes would hold the whole model in the host's memory first. Under
    ZeRO-3 DeepSpeed places the shards.
    """
    if device.type != "cuda" or stage is ZeroStage.PARAMETERS:
        return {}
    return {"device_map": {"": device}}
