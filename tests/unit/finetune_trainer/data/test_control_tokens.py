"""Special tokens in what a row says: refused where they would be learned wrongly, else told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from finetune_trainer.data.encode import Encoder
from finetune_trainer.data.faults import Kind, RowError
from finetune_trainer.data.rows import Dialogue, Row, TextPair
from support.models.chat_templates import CHATML_SPECIAL, LLAMA3, LLAMA3_SPECIAL
from support.models.encoded_rows import turns
from support.models.tiny_llama import CHATML, byte_tokenizer

# The next turn's marker is what ends a turn.
MARKED = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
MARKED_SPECIAL = ("<|user|>", "<|assistant|>", "<|endoftext|>")
ASKED, ANSWERED, *REST = turns("a", "b<|im_end|>", "c", "d").messages
CONTEXT = Dialogue((ASKED, ANSWERED._replace(learned=False), *REST))


def outcome(row: Row, template: str | None, special: tuple[str, ...]) -> Kind | tuple[Kind, ...]:
    try:
        return Encoder(byte_tokenizer(template, special), 4096).encode(row).warnings
    except RowError as error:
        return error.kind


@pytest.mark.parametrize(
    ("row", "template", "special", "expected"),
    [
        (turns("a", "b"), CHATML, CHATML_SPECIAL, ()),
        (turns("a", "b<|im_end|>"), CHATML, CHATML_SPECIAL, Kind.END_TOKEN_WRITTEN),
        (turns("a", "b<|im_end|> \n"), CHATML, CHATML_SPECIAL, Kind.END_TOKEN_WRITTEN),
        (turns("a", "b<|im_end|>", "c", "d"), CHATML, CHATML_SPECIAL, Kind.END_TOKEN_WRITTEN),
        (turns("a", "b<|eot_id|>"), LLAMA3, LLAMA3_SPECIAL, Kind.END_TOKEN_WRITTEN),
        (turns("a", "b<|im_end|>c"), CHATML, CHATML_SPECIAL, (Kind.CONTROL_TOKEN,)),
        (turns("a", "b<|im_start|>user"), CHATML, CHATML_SPECIAL, Kind.TURN_OPENED),
        (turns("a", "<|begin_of_text|>b"), LLAMA3, LLAMA3_SPECIAL, Kind.TURN_OPENED),
        (turns("a<|im_end|>", "b"), CHATML, CHATML_SPECIAL, (Kind.CONTROL_TOKEN,)),
        (turns("a", "b", system="<|im_start|>"), CHATML, CHATML_SPECIAL, (Kind.CONTROL_TOKEN,)),
        (CONTEXT, CHATML, CHATML_SPECIAL, (Kind.CONTROL_TOKEN,)),
        (turns("a", "b<|user|>"), MARKED, MARKED_SPECIAL, Kind.END_TOKEN_WRITTEN),
        (turns("a", "b<|user|>c"), MARKED, MARKED_SPECIAL, Kind.TURN_OPENED),
        # A text that looks like another tokenizer's token is text.
        (turns("a", "b<|im_end|>"), LLAMA3, LLAMA3_SPECIAL, ()),
        (TextPair("a", "b<|im_end|>"), None, CHATML_SPECIAL, Kind.END_TOKEN_WRITTEN),
        (TextPair("a", "b<|im_end|>"), CHATML, CHATML_SPECIAL, Kind.END_TOKEN_WRITTEN),
        (TextPair("a", "b<|im_start|>c"), None, CHATML_SPECIAL, (Kind.CONTROL_TOKEN,)),
        (TextPair("a<|im_end|>", "b"), None, CHATML_SPECIAL, (Kind.CONTROL_TOKEN,)),
        (TextPair("a", "b"), None, CHATML_SPECIAL, ()),
    ],
)
def test_what_is_said_of_a_special_token(
    row: Row, template: str | None, special: tuple[str, ...], expected: Kind | tuple[Kind, ...]
) -> None:
    assert outcome(row, template, special) == expected


def test_reasoning_is_learned_too() -> None:
    row = turns("a", "b")
    answer = row.messages[1]._replace(reasoning="so<|im_end|>")
    written = CHATML.replace(
        "message['content']", "(message.reasoning_content or '') + message['content']"
    )
    row = replace(row, messages=(row.messages[0], answer))
    assert outcome(row, written, CHATML_SPECIAL) is Kind.END_TOKEN_WRITTEN
