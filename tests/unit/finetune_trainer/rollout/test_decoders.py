"""Token by token, decoders give what transformers' own `generate` does."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from finetune_trainer.model.architectures import ARCHITECTURES
from finetune_trainer.rollout import prefixed
from finetune_trainer.rollout.decoders import Decoder, PlainDecoder, SharedDecoder, attention_for
from support.models.tiny_models import MODELS, write_tiny

CPU = torch.device("cpu")
TOKENS = 14
LENGTHS = (5, 19, 1, 9)
OWNERS = [0, 0, 1, 1, 1, 2, 3, 3]
DROPS = {3: [0, 1, 5], 6: [1], 9: [0, 2]}  # rows as they are numbered by then
WINDOWS = {name: {"sliding_window": 8} for name in ("mistral", "gemma2", "gemma3")}
COVERING = ("llama", "qwen3-moe", "deepseek-v3", "gemma2", "mistral", "olmo2")
NAMES = [
    pytest.param(name, marks=[] if name in COVERING else [pytest.mark.slow]) for name in MODELS
]


class Passes(SharedDecoder):
    """Reads few tokens in a forward pass."""

    read_tokens = 20


class Unknowing(torch.nn.Module):
    """A model that does not know the option of keeping few logits."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model, self.config = model, model.config

    def forward(self, input_ids: Any, **options: Any) -> Any:
        assert "logits_to_keep" not in options
        return self.model(input_ids=input_ids, **options)


def load(name: str, directory: Path) -> Any:
    write_tiny(name, directory, **WINDOWS.get(name, {}))
    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()


def prompts(lengths: Sequence[int]) -> list[Any]:
    draw = np.random.default_rng(0)
    return [draw.integers(5, 250, length).astype(np.int32) for length in lengths]


def generated(model: Any, prompt: Any) -> list[int]:
    out = model.generate(
        torch.tensor(prompt).long()[None],
        max_new_tokens=TOKENS,
        min_new_tokens=TOKENS,
        do_sample=False,
        pad_token_id=0,
    )
    found: list[int] = out[0, len(prompt) :].tolist()
    return found


def decoded(decoder: Decoder, owners: Sequence[int], end: int) -> list[list[int]]:
    """Return each row's tokens, no end of turn among them, up to where it was dropped."""
    found: list[list[int]] = [[] for _ in owners]
    rows = list(range(len(owners)))
    with torch.no_grad():
        logits = torch.cat(list(decoder.read()))[list(owners)]
        for place in range(TOKENS):
            logits[:, end] = -torch.inf
            tokens = logits.argmax(-1)
            for row, token in zip(rows, tokens.tolist(), strict=True):
                found[row].append(token)
            if place in DROPS:
                kept = [i for i in range(len(rows)) if i not in DROPS[place]]
                rows = [rows[i] for i in kept]
                tokens = tokens[kept]
                decoder.keep(torch.tensor(kept))
            if place < TOKENS - 1:
                logits = decoder.step(tokens)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_greedy_tokens_are_those_of_generate(name: str, tmp_path: Path) -> None:
    model = load(name, tmp_path)
    shares = model.config.model_type in ARCHITECTURES
    given = prompts(LENGTHS if shares else (7,) * len(LENGTHS))
    own = [generated(model, prompt) for prompt in given]
    expected = [own[owner] for owner in OWNERS]
    end = model.config.eos_token_id
    before = model.config._attn_implementation
    if shares:
        with attention_for(model):
            found = decoded(Passes(model, given, OWNERS, TOKENS - 1, CPU), OWNERS, end)
    else:
        found = decoded(PlainDecoder(model, given, OWNERS, CPU), OWNERS, end)
    assert model.config._attn_implementation == before
    assert {len(tokens) for tokens in found} == {4, 7, 10, TOKENS}
    assert found == [tokens[: len(f)] for tokens, f in zip(expected, found, strict=True)]


def test_a_prompt_is_read_and_kept_once(tmp_path: Path) -> None:
    model = load("llama", tmp_path)
    read: list[int] = []
    model.model.layers[0].register_forward_pre_hook(
        lambda _, inputs: read.append(inputs[0].shape[1])
    )
    [prompt] = prompts([30])
    with torch.no_grad(), attention_for(model):
        decoder = SharedDecoder(model, [prompt], [0] * 8, TOKENS, CPU)
        list(decoder.read())
    assert read == [30]
    layers, heads, width = 2, 2, 8
    assert decoder.kept_bytes == 2 * layers * heads * width * 30 * 4


@pytest.mark.parametrize("shares", [True, False])
def test_what_is_kept_is_counted_and_no_more_than_what_is_drawn(
    shares: bool, tmp_path: Path
) -> None:
    model, given, rows = load("llama", tmp_path), prompts([6]), 3
    token = 2 * 2 * 2 * 8 * 4  # keys and values, layers, heads, width, bytes
    with torch.no_grad(), attention_for(model, prefixed.NAME if shares else "sdpa"):
        if shares:
            decoder: Decoder = SharedDecoder(model, given, [0] * rows, 10, CPU)
        else:
            decoder = PlainDecoder(model, given, [0] * rows, CPU)
        list(decoder.read())
        prompt = 6 * token * (1 if shares else rows)
        assert prompt <= decoder.kept_bytes <= prompt + 64
        for added in range(1, 11):
            decoder.step(torch.tensor([7] * rows))
            assert decoder.kept_bytes >= prompt + rows * added * token
            assert decoder.kept_bytes <= prompt + rows * 10 * token + 64


def test_prompts_are_read_in_passes_of_bounded_length(tmp_path: Path) -> None:
    model = load("llama", tmp_path)
    with torch.no_grad(), attention_for(model):
        decoder = Passes(model, prompts([8, 12, 1, 30, 2]), [0, 1, 2, 3, 4], TOKENS, CPU)
        assert [len(logits) for logits in decoder.read()] == [2, 1, 1, 1]


@pytest.mark.parametrize("known", [True, False])
def test_logits_of_a_prompt_s_last_token_alone_are_made(known: bool, tmp_path: Path) -> None:
    model = load("olmo2", tmp_path)
    made: list[int] = []
    model.lm_head.register_forward_hook(lambda _, inputs, logits: made.append(logits.shape[1]))
    with torch.no_grad():
        causal = model if known else Unknowing(model)
        [logits] = PlainDecoder(causal, prompts([9, 9]), [0, 1], CPU).read()
    assert made == [1 if known else 9]
    assert logits.shape == (2, model.config.vocab_size)


def test_states_that_do_not_grow_are_counted() -> None:
    model = hybrid()
    with torch.no_grad():
        kept = []
        for length in (1, 2, 3):
            decoder = PlainDecoder(model, prompts([length]), [0, 0], CPU)
            list(decoder.read())
            kept.append(decoder.kept_bytes)
    token = 2 * 2 * 16 * 4  # keys and values of one layer: heads, width, bytes
    conv, state = (2 * 2 * 4 + 2 * 4) * 4, 2 * 4 * 4
    assert [later - before for before, later in pairwise(kept)] == [2 * token] * 2
    assert kept[0] == 2 * (token + 4 * (conv + state))


def hybrid() -> Any:
    """Return a model of which one layer has attention, and one a state of one size."""
    config = AutoConfig.for_model(
        "qwen3_next",
        vocab_size=250,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        linear_num_key_heads=2,
        linear_num_value_heads=2,
        linear_key_head_dim=4,
        linear_value_head_dim=4,
        linear_conv_kernel_dim=4,
        layer_types=["linear_attention", "full_attention"],
        num_experts=0,
        intermediate_size=16,
        pad_token_id=0,
    )
    return AutoModelForCausalLM.from_config(config).eval()
