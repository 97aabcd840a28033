"""A tiny random Llama with a byte-ish tokenizer and a ChatML template, made on the spot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def byte_tokenizer(
    chat_template: str | None = CHATML,
    special: tuple[str, ...] = SPECIAL,
    merges: list[tuple[str, str]] | None = None,
) -> Any:
    """Return a fast tokenizer whose tokens are bytes, and merges of bytes if some are given.

    Its pad token is its end-of-turn token.
    """
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate((*special, *alphabet))}
    for left, right in merges or []:
        vocabulary[left + right] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges or []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(special))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=special[-1],
        pad_token=special[-1],
        additional_special_tokens=list(special),
    )
    fast.chat_template = chat_template
    return fast


def write_model(
    directory: Path,
    *,
    chat_template: str | None = CHATML,
    seed: int = 0,
    max_shard_size: str = "1GB",
    **config: Any,
) -> Path:
    """Write a random Llama of 2 layers as a model directory and return it."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = byte_tokenizer(chat_template)
    shape: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 256,
        "tie_word_embeddings": False,
        "initializer_range": 0.3,  # sharp enough that a wrong mask or position shows in the loss
    }
    torch.manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(**{**shape, **config}))
    model.save_pretrained(directory, max_shard_size=max_shard_size)
    tokenizer.save_pretrained(directory)
    return directory


def write_rows(path: Path, rows: list[Any]) -> Path:
    """Write rows as JSONL and return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def dialogue(*turns: str) -> dict[str, Any]:
    """Return a messages row of turns that alternate, the user first."""
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[i % 2], "content": t} for i, t in enumerate(turns)]}


def sums(count: int) -> list[dict[str, Any]]:
    """Return rows of unequal length."""
    return [dialogue(f"{i} + {i * i} = ?", str(i + i * i) + "!" * (i % 5)) for i in range(count)]
