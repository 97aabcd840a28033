"""A completion ends at an end-of-turn token, or with the token that completes a stop text."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from finetune_trainer.rollout.endings import Endings
from support.models.tiny_llama import byte_tokenizer

TOKENIZER = byte_tokenizer(merges=[("o", "p")])
END = TOKENIZER.eos_token_id


def model(eos: Any) -> Any:
    return SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=eos))


def ends_at(text: str, *stop: str) -> int | None:
    """Return how many tokens of a text there are when it ends."""
    endings = Endings(model(None), TOKENIZER, stop)
    tokens = TOKENIZER(text)["input_ids"]
    lengths = range(1, len(tokens) + 1)
    return next((length for length in lengths if endings.ended(tokens[:length])), None)


def test_a_turn_ends_where_the_chat_template_ends_it() -> None:
    tokenizer = byte_tokenizer()
    turn, text = tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|endoftext|>")
    tokenizer.eos_token = "<|endoftext|>"
    endings = Endings(model(7), tokenizer, ())
    assert all(endings.ended([1, token]) for token in (7, text, turn))
    assert not endings.ended([7, text, turn, 1])


def test_a_stop_text_ends_with_the_token_that_completes_it() -> None:
    assert ends_at("abstxyz", "stx") == 5
    assert ends_at("abst", "stx") is None


def test_a_token_may_go_beyond_the_stop_text() -> None:
    assert TOKENIZER.tokenize("xop") == ["x", "op"]
    assert ends_at("xopq", "xo") == 2


def test_any_stop_text_ends_it() -> None:
    assert ends_at("abcdef", "zz", "e", "cd") == 4


def test_a_stop_text_may_be_longer_than_what_is_decoded_of_others() -> None:
    text = "é" * 20
    assert ends_at("x" * 30 + text + "y", text, "z") == 70


def test_a_stop_text_may_be_a_special_token() -> None:
    assert ends_at("ab<|im_start|>cd", "<|im_start|>") == 3


def test_a_stop_text_may_begin_with_a_space_before_a_full_stop() -> None:
    assert ends_at("a . b", " .") == 3


def test_no_more_is_decoded_than_a_stop_text_may_take() -> None:
    lengths: list[int] = []

    def decode(tokens: list[int], **_: Any) -> str:
        lengths.append(len(tokens))
        return ""

    tokenizer = SimpleNamespace(eos_token_id=None, chat_template=None, decode=decode)
    assert Endings(model(None), tokenizer, ()).ended([1] * 1000) is False
    assert lengths == [], "without a stop text nothing is"
    assert Endings(model(None), tokenizer, ("ab", "c" * 50)).ended([1] * 1000) is False
    [length] = lengths
    assert 50 <= length < 60
