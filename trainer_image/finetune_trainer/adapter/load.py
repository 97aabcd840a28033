"""The model to train: base loaded, adapters put on it, coverage counted."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig

from finetune_contract.layout import ZeroStage
from finetune_contract.recipe import Recipe
from finetune_trainer.adapter.initial import load_initial
from finetune_trainer.adapter.lora import Adapted, adapt
from finetune_trainer.adapter.roles import map_roles
from finetune_trainer.model.base import load_model
from finetune_trainer.model.positions import fix_frequencies
from finetune_trainer.model.quantization import keep_layout, loading_options
from finetune_trainer.model.tokenizer import LOCAL

log = logging.getLogger(__name__)

_DRAWS = ("drop", "jitter")  # in the names of what draws random numbers in training


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
    options["config"] = training_config(directory, recipe.training.sequence_length)
    base = load_model(directory, recipe.training.precision, **options)
    for module in base.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    keep_layout(base)
    adapted = adapt(base, recipe.lora, map_roles(base), recipe.training.seed)
    if initial is not None:
        load_initial(adapted.model, initial)
    return adapted


def training_config(directory: Path, sequence_length: int) -> Any:
    """Return transformers' configuration of the base, so that layout decides nothing.

    Dropout of the base itself would draw by process and micro-batch, and adapters have their own.
    """
    config = AutoConfig.from_pretrained(str(directory), **LOCAL)
    fix_frequencies(config, sequence_length)
    parts = [config, *(getattr(config, name, None) for name in config.sub_configs)]
    for part in (part for part in parts if part is not None):
        for name, value in part.to_dict().items():
            if isinstance(value, float) and value and any(word in name for word in _DRAWS):
                log.info("%s %g of the base model is not used in training", name, value)
                setattr(part, name, 0.0)
    return config


def placement_on(device: torch.device, stage: ZeroStage) -> dict[str, Any]:
    """Return what transformers' `from_pretrained` must be told to load straight onto a GPU.

    Else each of a node's processes would hold the whole model in the host's memory first. Under
    ZeRO-3 DeepSpeed places the shards.
    """
    if device.type != "cuda" or stage is ZeroStage.PARAMETERS:
        return {}
    return {"device_map": {"": device}}
