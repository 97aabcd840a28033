"""LoRA adapters (arXiv 2106.09685) on the layers that play the roles asked for."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from peft import LoraConfig, get_peft_model

from finetune_contract.reasons import Reason
from finetune_contract.recipe import LoraRecipe, LoraTarget
from finetune_trainer.errors import Failure

log = logging.getLogger(__name__)


def adapt(
    model: Any, recipe: LoraRecipe, modules: Mapping[LoraTarget, tuple[str, ...]], seed: int
) -> Any:
    """Return the PEFT model: base frozen, adapters trainable and fp32.

    The seed is set here, so that every rank of every layout begins with the same adapter.
    """
    for target, names in modules.items():
        found = _count(model, names)
        if not found:
            raise Failure(
                Reason.MODEL_UNSUPPORTED,
                f"the base model has no {', '.join(names)} for spec.lora.targets {target}",
            )
        log.info("LoRA on %s: %d linear layers", target, found)
    torch.manual_seed(seed)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.dropout,
        target_modules=[name for names in modules.values() for name in names],
    )
    return get_peft_model(model, config)


def _count(model: Any, names: tuple[str, ...]) -> int:
    return sum(
        isinstance(module, torch.nn.Linear) and name.rpartition(".")[2] in names
        for name, module in model.named_modules()
    )
