"""What is published: adapter, tokenizer with its chat template, merged model, model card."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peft import get_peft_model_state_dict
from safetensors.torch import save_file

from finetune_contract.artifact import ModelIdentity, Provenance, Serving, TrainingSummary
from finetune_contract.plan import RoleCoverage
from finetune_contract.recipe import Export, Recipe
from finetune_trainer.hub import SCHEME
from finetune_trainer.lora import ADAPTER, adapted_weights, loadable_targets
from finetune_trainer.merge import save_merged
from finetune_trainer.serving import vllm_serving
from finetune_trainer.tokenizer import load_tokenizer

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
CARD = "README.md"
MERGED = "merged"


def export(
    model: Any,
    recipe: Recipe,
    provenance: Provenance,
    training: TrainingSummary,
    coverage: Sequence[RoleCoverage],
    base: Path,
    directory: Path,
) -> Serving:
    """Write all files of the artifact but its manifest; return who can serve the adapter.

    `base` holds the base model's configuration and tokenizer, and its weights where the recipe
    asks for the merged model.
    """
    serving = vllm_serving(model.config.model_type, recipe.lora, adapted_weights(model))
    save_adapter(model, provenance.model, directory)
    tokenizer = load_tokenizer(base)
    if Export.MERGED in recipe.export:
        save_merged(base, directory, directory / MERGED)
        save_tokenizer(tokenizer, directory / MERGED)
    save_tokenizer(tokenizer, directory)
    save_card(recipe, provenance, training, coverage, serving, directory)
    return serving


def base_model_name(uri: str) -> str:
    """Return what loaders know the base model by: the hub's `ORG/NAME`, else the URI."""
    return uri.removeprefix(SCHEME)


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


def save_card(
    recipe: Recipe,
    provenance: Provenance,
    training: TrainingSummary,
    coverage: Sequence[RoleCoverage],
    serving: Serving,
    directory: Path,
) -> None:
    """Write the model card: what it was made from, how, and how to load it."""
    base = base_model_name(provenance.model.uri)
    roles = "\n".join(f"| {c.role} | {c.adapted} of {c.found} |" for c in coverage)
    served = "yes" if serving.vllm else f"no: {serving.why_not}"
    datasets = "\n".join(f"| {d.uri} | {d.rows} | {d.sha256} |" for d in provenance.datasets)
    settings = json.dumps(recipe.model_dump(mode="json", by_alias=True), indent=2)
    (directory / CARD).write_text(
        f"""---
base_model: {base}
library_name: peft
pipeline_tag: text-generation
tags: [lora, {recipe.method.lower()}]
---

# LoRA adapter for {base}

| | |
|---|---|
| Base model | {provenance.model.uri} |
| Revision | {provenance.model.revision} |
| Method | {recipe.method} |
| Optimizer steps | {training.steps} |
| Learned tokens | {training.supervised_tokens} |
| Final loss | {training.final_loss:.4f} |
| Recipe | {provenance.recipe_digest} |
| Began with | {provenance.init_from or "a new adapter"} |
| Served by vLLM | {served} |

## Weights adapted

| Role | Weights |
|---|---|
{roles}

## Data

| File | Rows | sha256 |
|---|---|---|
{datasets}

## How to load it

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base = AutoModelForCausalLM.from_pretrained("PATH OR NAME OF THE BASE MODEL")
model = PeftModel.from_pretrained(base, "PATH OF THIS DIRECTORY")
tokenizer = AutoTokenizer.from_pretrained("PATH OF THIS DIRECTORY")
```

## Recipe

```json
{settings}
```
"""
    )
