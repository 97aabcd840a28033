"""The model card: what an adapter was made from, how, and how to load it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from finetune_contract.artifact import Provenance, Serving, TrainingSummary
from finetune_contract.recipe import Recipe
from finetune_contract.resolved import RoleCoverage
from finetune_trainer.store.hub import base_model_name

CARD = "README.md"
_TEMPLATE = """---
base_model: {base}
library_name: peft
pipeline_tag: text-generation
tags: [lora, {tag}]
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
| Began with | {began} |
| Served by vLLM | {served} |
| Generation stops at | {ends} |
| To be minded | {advice} |

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
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

base = AutoModelForCausalLM.from_pretrained("PATH OR NAME OF THE BASE MODEL")
model = PeftModel.from_pretrained(base, "PATH OF THIS DIRECTORY")
tokenizer = AutoTokenizer.from_pretrained("PATH OF THIS DIRECTORY")
model.generation_config = GenerationConfig.from_pretrained("PATH OF THIS DIRECTORY")
```

## Recipe

```json
{settings}
```
"""


def save_card(
    recipe: Recipe,
    provenance: Provenance,
    training: TrainingSummary,
    coverage: Sequence[RoleCoverage],
    serving: Serving,
    ends: Sequence[str],
    advice: Sequence[str],
    directory: Path,
) -> None:
    """Write the model card; `ends` are the tokens at which generation is to stop, `advice` what
    training could not mend."""
    base = base_model_name(provenance.model.uri)
    roles = "\n".join(f"| {c.role} | {c.adapted} of {c.found} |" for c in coverage)
    served = "yes" if serving.vllm else f"no: {serving.why_not}"
    datasets = "\n".join(f"| {d.uri} | {d.rows} | {d.sha256} |" for d in provenance.datasets)
    settings = json.dumps(recipe.model_dump(mode="json", by_alias=True), indent=2)
    text = _TEMPLATE.format(
        base=base,
        tag=recipe.method.lower(),
        recipe=recipe,
        provenance=provenance,
        training=training,
        began=provenance.init_from or "a new adapter",
        served=served,
        advice="; ".join(advice) or "nothing",
        ends=", ".join(f"`{end}`" for end in ends) or "no token",
        roles=roles,
        datasets=datasets,
        settings=settings,
    )
    (directory / CARD).write_text(text)
