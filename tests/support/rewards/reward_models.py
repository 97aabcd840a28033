"""Small random reward models on disk, and RunConfigs that ask them."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from tokenizers.processors import TemplateProcessing

from finetune_rewards.panel import Panel
from finetune_trainer.methods.grpo.rewards.opened import opened_panel
from finetune_trainer.methods.grpo.rewards.reward_model import reward_models
from finetune_trainer.process.distributed import Ranks
from support.grpo.configs import grpo_config
from support.models.tiny_llama import byte_tokenizer

# A dialogue ends with the token that the tokenizer pads with, too.
CLOSED = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + ' ' + m['content'] + '<|im_end|>' }}"
    "{% endfor %}"
)
SHAPE: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "initializer_range": 0.5,
    "max_position_embeddings": 256,
    "pad_token_id": 2,
}


def write_judge(
    directory: Path,
    model_type: str = "llama",
    *,
    tokenizer: Any = None,
    template: str | None = CLOSED,
    **config: Any,
) -> Any:
    """Write a classifier with one label and its tokenizer, and return it."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    torch.manual_seed(0)
    shape = {**SHAPE, "num_labels": 1, **config}
    model = AutoModelForSequenceClassification.from_config(
        AutoConfig.for_model(model_type, **shape)
    )
    model.save_pretrained(directory)
    if tokenizer is None:
        tokenizer = byte_tokenizer(template)
        # As many do, it begins a text that is no dialogue's with a token of its own.
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
        )
    tokenizer.save_pretrained(directory)
    return model.eval()


def judged(directory: Path) -> Any:
    """Return a RunConfig of GRPO whose only reward is the model in `judge`."""
    reward = {"name": "judge", "model": {"uri": f"file://{directory}/judge"}}
    return grpo_config(directory, grpo={"rewards": [reward]})


def opened(directory: Path, ranks: Ranks) -> AbstractContextManager[Panel]:
    """Open the rewards of `judged`."""
    config = judged(directory)
    return opened_panel(config, reward_models(config, ranks), ranks)
