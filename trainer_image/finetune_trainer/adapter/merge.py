"""The merged model: the base in its own format with the adapter's update added.

Made on one process from the base's files and the adapter's, whatever layout trained it; takes as
much of the host's memory as the base's weights.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from peft import PeftModel
from torch import nn

from finetune_trainer.model.base import load_model


def save_merged(base: Path, adapter: Path, directory: Path, max_shard_size: str = "5GB") -> None:
    """Write the model of directory `base` plus the adapter of another, as safetensors.

    Each weight keeps the number format that the base stores it in, but for those that transformers
    keeps in fp32, such as routers.
    """
    model = load_model(base, None)
    if model.config.tie_word_embeddings and _adapts_embeddings(model, adapter):
        _untie(model)
    merged = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    merged.save_pretrained(str(directory), max_shard_size=max_shard_size)


def _adapts_embeddings(model: Any, adapter: Path) -> bool:
    sides = (model.get_input_embeddings(), model.get_output_embeddings())
    names = {name for name, module in model.named_modules() if any(module is s for s in sides)}
    config = json.loads((adapter / "adapter_config.json").read_bytes())
    return not names.isdisjoint(config["target_modules"])


def _untie(model: Any) -> None:
    """Give the output embedding a weight of its own: an update of one side is not the other's.

    PEFT, when it merges, finds the two apart and says so in the configuration.
    """
    shared = model.get_input_embeddings().weight.detach()
    model.get_output_embeddings().weight = nn.Parameter(shared.clone(), requires_grad=False)
