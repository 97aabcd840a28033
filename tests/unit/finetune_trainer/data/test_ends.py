"""The tokens that end a turn are learned from how the chat template ends turns."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import AddedToken

from finetune_trainer.data.ends import turn_ends
from support.models.tiny_llama import CHATML, SPECIAL, byte_tokenizer

# Calls stand after the words, and end with a token of their own.
CALLS = CHATML.replace(
    "'<|im_end|>'",
    "(message.tool_calls[0].function | tojson ~ '<|call|>' if message.tool_calls"
    " else '<|im_end|>')",
)


def ends(template: str | None, *added: AddedToken, special: tuple[str, ...] = SPECIAL) -> list[str]:
    """Return them as text, for a base model whose own end is `<|endoftext|>`."""
    tokenizer: Any = byte_tokenizer(template, special)
    tokenizer.add_tokens(list(added))
    tokenizer.eos_token = "<|endoftext|>"
    return sorted(tokenizer.convert_ids_to_tokens(list(turn_ends(tokenizer))))


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (CHATML, ["<|im_end|>"]),
        (CHATML.replace("<|im_end|>", "<|endoftext|>"), ["<|endoftext|>"]),
        (CALLS, ["<|call|>", "<|im_end|>"]),
        (CHATML.replace("'<|im_end|>'", "''"), ["<|im_start|>"]),
        (CHATML.replace("<|im_start|>", "").replace("<|im_end|>", ""), []),
        ("{{ raise_exception('never') }}", []),
        (None, []),
    ],
    ids=[
        "another than the model's",
        "the model's",
        "of calls",
        "what opens the next",
        "text",
        "refused",
        "no template",
    ],
)
def test_ends(template: str | None, expected: list[str]) -> None:
    assert ends(template, special=(*SPECIAL, "<|call|>")) == expected


def test_a_token_that_was_only_added_ends_an_answer_but_no_call() -> None:
    call, end = AddedToken("<|call|>", special=False), AddedToken("<|end|>", special=False)
    assert ends(CALLS.replace("<|im_end|>", "<|end|>"), call, end) == ["<|end|>"]
