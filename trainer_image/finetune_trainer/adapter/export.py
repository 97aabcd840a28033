"""What is published: adapter, tokenizer with its chat template, merged model, model card."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peft import get_peft_model_state_dict
from safetensors.torch import save_file

from finetune_contract.artifact import ModelIdentity, Provenance, Serving, TrainingSummary
from finetune_contract.recipe import Export, Recipe
from finetune_contract.resolved import RoleCoverage
from finetune_trainer.adapter.card import save_card
from finetune_trainer.adapter.lora import ADAPTER, adapted_weights, loadable_targets
from finetune_trainer.adapter.merge import save_merged
from finetune_trainer.adapter.serving import vllm_serving
from finetune_trainer.model.generation import save_generation_config, stop_tokens
from finetune_trainer.model.tokenizer import load_tokenizer
from finetune_trainer.store.hub import base_model_name

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
MERGED = "merged"


def export(
    model: Any,
    recipe: Recipe,
    provenance: Provenance,
    training: TrainingSummary,
    coverage: Sequence[RoleCoverage],
    advice: Sequence[str],
    base: Path,
    words: Path,
    directory: Path,
) -> Serving:
    """Write all files of the artifact but its manifest; return who can serve the adapter.

    `base` holds the base model's configuration, and its weights where the recipe asks for the
    merged model; `words` is the directory of the tokenizer.
    """
    serving = vllm_serving(model.config.model_type, recipe.lora, adapted_weights(model))
    save_adapter(model, provenance.model, directory)
    tokenizer, causal = load_tokenizer(words), model.get_base_model()
    if Export.MERGED in recipe.export:
        save_merged(base, directory, directory / MERGED)
        save_tokenizer(tokenizer, directory / MERGED)
        save_generation_config(causal, tokenizer, base, directory / MERGED)
    save_tokenizer(tokenizer, directory)
    save_generation_config(causal, tokenizer, base, directory)
    ends = tokenizer.convert_ids_to_tokens(stop_tokens(causal, tokenizer))
    save_card(recipe, provenance, training, coverage, serving, ends, advice, directory)
    return serving


def save_adapter(model: Any, identity: ModelIdentity, directory: Path) -> None:
    """Write weights (fp32 safetensors) and adapter_config.json in PEFT's format.

    Not `save_pretrained`: it asks the hub about the base model and writes a card of its own.
    """
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    save_file(tensors, directory / WEIGHTS, metadata={"format": "pt"})
    config = copy.deepcopy(model.peft_config[ADAPTER])
    config.base_model_name_or_path = base_model_name(identity.uri)
    config.revision = identity.revision
    config.inference_mode = True
    config.target_modules, config.target_parameters = loadable_targets(model)
    if config.target_parameters:
        config.lora_dropout = 0.0  # PEFT loads no adapter with both, and inference has none
    config.save_pretrained(str(directory))


def save_tokenizer(tokenizer: Any, directory: Path) -> None:
    """Write the tokenizer and chat template the adapter was trained with."""
    for key in ("name_or_path", "is_local", "local_files_only"):
        tokenizer.init_kwargs.pop(key, None)  # about this machine, not about the tokenizer
    tokenizer.name_or_path = ""
    tokenizer.save_pretrained(str(directory))
