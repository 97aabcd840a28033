"""What is learned, token by token, against expectations written by hand.

The tokenizer's tokens are bytes and its pad token is its end-of-turn token, as SmolLM2's is, so a
mask made from token ids would be wrong here.
"""

from __future__ import annotations

from itertools import groupby
from typing import Any

import pytest

from finetune_contract.reasons import Reason
from finetune_trainer.data.encode import Encoder
from finetune_trainer.data.faults import RowError
from finetune_trainer.data.rows import Dialogue, Message, Row, TextPair
from finetune_trainer.errors import Failure
from support.tiny_llama import CHATML, byte_tokenizer

SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    "<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] + "
    "'<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set content = '<|begin_of_text|>' + content %}{% endif %}"
    "{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
    "{% endif %}"
)
LLAMA3_SPECIAL = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
# Like Qwen3: reasoning stands before the last answer only, so earlier prefixes do not hold.
REASONING = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' and loop.last %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# No special token ends a turn: its newline does.
PLAIN = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)


def turns(*contents: str, system: str | None = None, learn_from: int = 0) -> Dialogue:
    messages = [] if system is None else [Message("system", system)]
    messages += [Message(("user", "assistant")[i % 2], text) for i, text in enumerate(contents)]
    return Dialogue(tuple(messages), learn_from)


def pieces(row: Row, template: str | None, **tokenizer: Any) -> list[tuple[bool, str]]:
    """Return the runs of learned and not learned tokens as text."""
    fast = byte_tokenizer(template, **tokenizer)
    encoded = Encoder(fast).encode(row)
    assert len(encoded.tokens) == len(encoded.learned)
    pairs = zip(encoded.learned.tolist(), encoded.tokens.tolist(), strict=True)
    return [
        (learned, fast.decode([token for _, token in run]))
        for learned, run in groupby(pairs, key=lambda pair: pair[0])
    ]


def test_chatml_one_turn() -> None:
    assert pieces(turns("2+2?", "4"), CHATML) == [
        (False, "<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n"),
        (True, "4<|im_end|>"),
        (False, "\n"),
    ]


def test_smollm2_two_turns() -> None:
    system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    assert pieces(turns("Hi", "Hello, assistant\n", "Bye", "user"), SMOLLM2) == [
        (
            False,
            f"<|im_start|>system\n{system}<|im_end|>\n"
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
        ),
        (True, "Hello, assistant\n<|im_end|>"),
        (False, "\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n"),
        (True, "user<|im_end|>"),
        (False, "\n"),
    ]


def test_llama3_two_turns_with_a_system_turn() -> None:
    head = "<|start_header_id|>{}<|end_header_id|>\n\n"
    assert pieces(
        turns(" Hi", "Hello ", "Bye", "So long", system="Be brief"), LLAMA3, special=LLAMA3_SPECIAL
    ) == [
        (
            False,
            f"<|begin_of_text|>{head.format('system')}Be brief<|eot_id|>"
            f"{head.format('user')}Hi<|eot_id|>{head.format('assistant')}",
        ),
        (True, "Hello<|eot_id|>"),
        (False, f"{head.format('user')}Bye<|eot_id|>{head.format('assistant')}"),
        (True, "So long<|eot_id|>"),
    ]


def test_a_template_without_end_of_turn_token_teaches_its_newline() -> None:
    assert pieces(turns("Hi", "Yo"), PLAIN) == [
        (False, "user: Hi\nassistant: "),
        (True, "Yo\n"),
    ]


def test_a_template_that_renders_earlier_turns_differently() -> None:
    assert pieces(turns("a", "b", "c", "d"), REASONING) == [
        (False, "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n"),
        (True, "b<|im_end|>"),
        (False, "\n<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n"),
        (True, "<think>\n\n</think>\n\nd<|im_end|>"),
        (False, "\n"),
    ]


def test_only_the_completion_of_messages_is_learned() -> None:
    assert pieces(turns("a", "b", "c", "d", learn_from=3), CHATML)[1:] == [
        (True, "d<|im_end|>"),
        (False, "\n"),
    ]


def test_text_pairs_become_turns_where_there_is_a_template() -> None:
    assert pieces(TextPair("2+2?", "4"), CHATML) == pieces(turns("2+2?", "4"), CHATML)


def test_text_pairs_are_joined_where_there_is_none() -> None:
    assert pieces(TextPair("2+2=", "4"), None) == [(False, "2+2="), (True, "4<|im_end|>")]


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


@pytest.mark.parametrize(
    ("template", "row", "message"),
    [
        ("{{ messages | length }}" + CHATML, turns("a", "b"), "changes the turns before"),
        (
            PLAIN.replace("'\n'", "('!' if loop.last and loop.index is even else '') + '\n'"),
            turns("a", "b", "c", "d"),
            "changes an earlier assistant turn",
        ),
        (None, turns("a", "b"), "no chat template"),
    ],
)
def test_templates_that_do_not_tell_turns_apart_are_refused(
    template: str | None, row: Row, message: str
) -> None:
    with pytest.raises(Failure, match=message) as caught:
        pieces(row, template)
    assert caught.value.reason is Reason.MODEL_UNSUPPORTED


def test_a_row_that_the_template_refuses_is_a_fault_of_the_row() -> None:
    refusing = "{{ raise_exception('no ' + messages[0]['content']) }}"
    with pytest.raises(RowError, match="refused by the model's chat template") as caught:
        pieces(turns("canary", "b"), refusing)
    assert "canary" not in str(caught.value)


def test_a_base_model_without_end_of_sequence_token_is_refused() -> None:
    fast = byte_tokenizer(None)
    fast.eos_token = None
    with pytest.raises(Failure, match="no end-of-sequence token"):
        Encoder(fast).encode(TextPair("a", "b"))
