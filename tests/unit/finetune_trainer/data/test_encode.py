"""How tokenizers of other kinds are met; test_masks.py has the well-known ones.

The tokenizer's tokens are bytes and its pad token is its end-of-turn token, as SmolLM2's is, so a
mask made from token ids would be wrong here.
"""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import processors

from finetune_contract.reasons import Reason
from finetune_trainer.data.encode import Encoder
from finetune_trainer.data.faults import Kind, RowError
from finetune_trainer.data.rows import TextPair
from finetune_trainer.process.errors import Failure
from support.models.encoded_rows import pieces, pieces_by, turns
from support.models.tiny_llama import CHATML, byte_tokenizer


def test_text_pairs_are_joined_where_there_is_none() -> None:
    assert pieces(TextPair("2+2=", "4"), None) == [(False, "2+2="), (True, "4<|im_end|>")]


def trimming(template: str | None, **tokenizer: Any) -> Any:
    """Return the tokenizer with GPT-NeoX's offsets, which leave out white space."""
    fast = byte_tokenizer(template, **tokenizer)
    end = (fast.eos_token, fast.eos_token_id)
    fast.backend_tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=True),
            processors.TemplateProcessing(single=f"{end[0]} $A", special_tokens=[end]),
        ]
    )
    return fast


def test_white_space_is_learned_where_the_tokenizer_trims_it_from_offsets() -> None:
    fast = trimming(None)
    offsets = fast("a  b", return_offsets_mapping=True)["offset_mapping"]
    assert offsets[2] == (2, 2)  # the first of two spaces, where it ends
    end = "<|im_end|>"
    assert pieces_by(fast, TextPair("2+2= ", "\n 4 = 4 \n")) == [
        (False, f"{end}2+2= "),
        (True, f"\n 4 = 4 \n{end}"),
    ]
    assert fast("a  b", return_offsets_mapping=True)["offset_mapping"] == offsets


def test_a_token_whose_white_space_is_the_prompt_s_is_the_prompt_s() -> None:
    fast = trimming(None, merges=[("Ġ", "4")])
    assert pieces_by(fast, TextPair("2+2= ", "4 or 5")) == [
        (False, "<|im_end|>2+2= 4"),
        (True, " or 5<|im_end|>"),
    ]


def test_white_space_after_a_turn_is_not_learned_where_offsets_are_trimmed() -> None:
    assert pieces_by(trimming(CHATML), turns("Hi", " Yo ")) == [
        (False, "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"),
        (True, " Yo <|im_end|>"),
        (False, "\n"),
    ]


def test_a_token_that_the_model_does_not_know_is_the_model_s_fault() -> None:
    row = turns("a", "b")
    fast = byte_tokenizer()
    largest = int(Encoder(fast, 4096).encode(row).tokens.max())
    Encoder(fast, 4096, largest + 1).encode(row)
    with pytest.raises(Failure, match=f"makes token {largest}, but the model has {largest} ") as e:
        Encoder(fast, 4096, largest).encode(row)
    assert e.value.reason is Reason.MODEL_UNSUPPORTED


def test_the_first_token_is_never_learned() -> None:
    assert pieces(TextPair("", "abc"), None) == [(False, "a"), (True, "bc<|im_end|>")]


def test_a_token_that_holds_some_of_the_header_is_not_learned() -> None:
    merges = {"merges": [("Ċ", "Ċ")]}
    assert pieces(turns("x", "\n\ny"), CHATML, **merges)[:2] == [
        (False, "<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\n\n"),
        (True, "\ny<|im_end|>"),
    ]
    with pytest.raises(RowError, match="merges into the prompt's last token"):
        pieces(TextPair("x\n", "\n"), None, **merges)


def test_a_row_may_have_as_many_tokens_as_the_sequence_and_no_more() -> None:
    fast = byte_tokenizer()
    tokens = len(Encoder(fast, 4096).encode(turns("a", "b")).tokens)
    assert len(Encoder(fast, tokens).encode(turns("a", "b")).tokens) == tokens
    with pytest.raises(RowError, match=f"has {tokens} tokens, more than .* {tokens - 1}") as caught:
        Encoder(fast, tokens - 1).encode(turns("a", "b"))
    assert caught.value.kind is Kind.TOO_LONG
    with pytest.raises(RowError, match="more than"):
        Encoder(byte_tokenizer(None), 8).encode(TextPair("abcd", "efgh"))


def test_a_base_model_without_end_of_sequence_token_is_refused() -> None:
    fast = byte_tokenizer(None)
    fast.eos_token = None
    with pytest.raises(Failure, match="no end-of-sequence token"):
        Encoder(fast, 4096).encode(TextPair("a", "b"))
