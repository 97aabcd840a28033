"""Where what is learned ends: at the token that closes a turn, whichever the model has for it."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import pytest
from tokenizers import AddedToken, processors

from finetune_trainer.data.completeness import drops_reasoning
from finetune_trainer.data.encode import Encoder
from finetune_trainer.data.faults import Kind, RowError
from finetune_trainer.data.messages import Message
from finetune_trainer.data.rows import Dialogue, Row, TextPair
from support.models.tiny_llama import CHATML, SPECIAL, byte_tokenizer


def learned(row: Row, tokenizer: Any) -> list[str]:
    """Return the runs of learned tokens as text."""
    encoded = Encoder(tokenizer, 4096).encode(row)
    runs = groupby(zip(encoded.learned, encoded.tokens, strict=True), key=lambda pair: pair[0])
    return [tokenizer.decode([t for _, t in run]) for is_learned, run in runs if is_learned]


def dialogue(*contents: str) -> Dialogue:
    roles = ("user", "assistant")
    return Dialogue(tuple(Message(roles[i % 2], text) for i, text in enumerate(contents)))


def test_a_special_token_without_a_name_closes_a_turn() -> None:
    tokenizer = byte_tokenizer(CHATML.replace("<|im_end|>", "<|end|>"))
    tokenizer.add_tokens([AddedToken("<|end|>", special=True)])
    assert learned(dialogue("a", "b"), tokenizer) == ["b<|end|>"]


def test_an_end_of_sequence_token_of_the_plain_vocabulary_closes_a_turn() -> None:
    tokenizer = byte_tokenizer(CHATML.replace("<|im_end|>", "$"))
    tokenizer.eos_token = "$"
    assert learned(dialogue("a", "b"), tokenizer) == ["b$"]


def test_a_tokenizer_that_closes_text_by_itself_closes_it_once() -> None:
    tokenizer = byte_tokenizer(None)
    end = SPECIAL[-1]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", special_tokens=[(end, tokenizer.eos_token_id)]
    )
    encoded = Encoder(tokenizer, 4096).encode(TextPair("2+2=", "4"))
    assert tokenizer.decode(encoded.tokens) == f"2+2=4{end}"
    assert encoded.learned.tolist() == [False] * 4 + [True, True]


@pytest.mark.parametrize(
    ("end", "first"), [("<|im_end|>", "b<|im_end|>"), ("<|endoftext|>", "b<|im_end|><|endoftext|>")]
)
def test_tokens_that_close_a_turn_are_learned_through_the_tokenizers_own(
    end: str, first: str
) -> None:
    closed = CHATML.replace("'<|im_end|>'", "'<|im_end|><|endoftext|>'").replace(
        "{% if add", "{% if not add_generation_prompt %}{{ '<|im_end|>' }}{% endif %}{% if add"
    )
    tokenizer = byte_tokenizer(closed)
    tokenizer.eos_token = end
    assert learned(dialogue("a", "b", "c", "d"), tokenizer)[0] == first


def test_a_turn_of_which_nothing_stands_is_refused() -> None:
    silent = CHATML.replace(
        "message['content'] + '<|im_end|>' + '\n'",
        "(message['content'] + '<|im_end|>' + '\n' if message['content'] else '')",
    )
    with pytest.raises(RowError, match="renders an assistant turn differently") as caught:
        learned(dialogue("a", "", "c", "d"), byte_tokenizer(silent))
    assert caught.value.kind is Kind.TEMPLATE_UNSTABLE


@pytest.mark.parametrize(
    ("text", "drops"),
    [("why so b", False), ("why b", True), ("so b", True)],
)
def test_reasoning_is_looked_for_in_field_and_content(text: str, drops: bool) -> None:
    answer = Message("assistant", "<think>so</think>b", reasoning="why")
    turns = (Message("user", "a</think>"), answer, Message("user", ""), Message("assistant", "b"))
    assert drops_reasoning(text, Dialogue(turns)) is drops
