"""Sequences for which a model has no positions are refused before any weights."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from finetune_contract.reasons import Reason
from finetune_trainer.model.positions import check_length, fix_frequencies
from finetune_trainer.process.errors import Failure

SMALL: dict[str, Any] = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 1}
LONGEST = 64


def empty(model_type: str, **config: Any) -> Any:
    shape = {**SMALL, "vocab_size": 40, "max_position_embeddings": LONGEST, **config}
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **shape))


@pytest.mark.parametrize(
    ("model_type", "config"),
    [
        ("gpt2", {}),
        ("opt", {"ffn_dim": 32, "word_embed_proj_dim": 32}),  # its table has two rows more
        ("gptj", {"rotary_dim": 8}),  # its table is a buffer
        ("biogpt", {}),
    ],
)
def test_a_table_of_positions_has_an_end(model_type: str, config: dict[str, Any]) -> None:
    model = empty(model_type, **config)
    check_length(model, LONGEST)
    with pytest.raises(Failure) as caught:
        check_length(model, LONGEST + 1)
    assert caught.value.reason is Reason.MODEL_UNSUPPORTED
    assert caught.value.message == (
        "spec.training.sequenceLength is 65, but the base model has a table of 64 positions; set "
        "it to 64 at most"
    )


def test_rotary_positions_go_on_and_are_told_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        check_length(empty("llama"), LONGEST)
        assert not caplog.messages
        check_length(empty("llama"), LONGEST + 1)
    assert caplog.messages == [
        "training.sequenceLength is 65, but max_position_embeddings of the base model is 64"
    ]


def test_frequencies_that_follow_the_longest_row_are_refused() -> None:
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    model = empty("llama", rope_parameters=rope)
    check_length(model, LONGEST)
    with pytest.raises(Failure, match="beyond 64 tokens chooses its rotary frequencies by the l"):
        check_length(model, LONGEST + 1)


def test_a_model_that_tells_no_longest_row_takes_any() -> None:
    check_length(empty("mamba", max_position_embeddings=None), 10**6)


@pytest.mark.parametrize(("sequence_length", "factor"), [(16, 1.0), (17, 4.0)])
def test_each_kind_of_layer_gets_one_set_of_factors(sequence_length: int, factor: float) -> None:
    config = AutoConfig.for_model("gemma3_text", **SMALL)
    kinds = config.rope_parameters
    kinds["full_attention"] = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "original_max_position_embeddings": 16,
        "short_factor": [1.0],
        "long_factor": [4.0],
    }
    plain = dict(kinds["sliding_attention"])
    fix_frequencies(config, sequence_length)
    long = config.rope_parameters["full_attention"]
    assert long["short_factor"] == long["long_factor"] == [factor]
    assert config.rope_parameters["sliding_attention"] == plain
