"""A dialogue that the assistant begins: its first turn is learned without its header.

Templates do not render what stands before it, for that is nothing.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from finetune_trainer.data.messages import Message
from finetune_trainer.data.rows import Dialogue
from support.models.chat_templates import (
    CHATML_SPECIAL,
    LLAMA3,
    LLAMA3_SPECIAL,
    QWEN3,
)
from support.models.encoded_rows import marked
from support.models.tiny_llama import CHATML

GREETING = Dialogue(
    (Message("assistant", "Hi, assistant"), Message("user", "q"), Message("assistant", "b"))
)
# The header opens a thought, which turns are rendered without.
OPENED = CHATML.replace("assistant\n' }}", "assistant\n<think>\n' }}")
# The next role closes a turn; the header is less than what a turn begins with.
MARKERS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ '<think></think>' if m.role == "
    "'assistant' }}{{ m.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant{% endif %}"
)
BARE = "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}"
EXPECTED = {
    CHATML: "<|im_start|>assistant\n⟦Hi, assistant<|im_end|>⟧\n<|im_start|>user\nq<|im_end|>\n"
    "<|im_start|>assistant\n⟦b<|im_end|>⟧\n",
    QWEN3: "<|im_start|>assistant\n⟦Hi, assistant<|im_end|>⟧\n<|im_start|>user\nq<|im_end|>\n"
    "<|im_start|>assistant\n⟦<think>\n\n</think>\n\nb<|im_end|>⟧\n",
    OPENED: "<|im_start|>assistant\n⟦Hi, assistant<|im_end|>⟧\n<|im_start|>user\nq<|im_end|>\n"
    "<|im_start|>assistant\n⟦b<|im_end|>⟧\n",
    MARKERS: "<|im_start|>assistant⟦\n<think></think>Hi, assistant<|im_end|>⟧<|im_start|>user\n"
    "q<|im_end|><|im_start|>assistant⟦\n<think></think>b<|im_end|>⟧",
    BARE: "H⟦i, assistant<|im_end|>⟧q<|im_end|>⟦b<|im_end|>⟧",
    LLAMA3: "<|begin_of_text|><|start_header_id|>assistant<|end_header_id|>\n\n⟦Hi, assistant"
    "<|eot_id|>⟧<|start_header_id|>user<|end_header_id|>\n\nq<|eot_id|><|start_header_id|>"
    "assistant<|end_header_id|>\n\n⟦b<|eot_id|>⟧",
}
SPECIAL = {LLAMA3: LLAMA3_SPECIAL}


@pytest.mark.parametrize("template", EXPECTED, ids=range(len(EXPECTED)))
def test_the_first_turn_may_be_the_assistants(template: str) -> None:
    assert marked(GREETING, template, SPECIAL.get(template, CHATML_SPECIAL)) == EXPECTED[template]


def test_a_greeting_may_be_context_or_all_there_is() -> None:
    context = replace(GREETING, learn_from=1)
    assert marked(context, CHATML, CHATML_SPECIAL).startswith(
        "<|im_start|>assistant\nHi, assistant"
    )
    alone = Dialogue(GREETING.messages[:1])
    assert marked(alone, CHATML, CHATML_SPECIAL) == (
        "<|im_start|>assistant\n⟦Hi, assistant<|im_end|>⟧\n"
    )
    assert marked(alone, QWEN3, CHATML_SPECIAL) == (
        "<|im_start|>assistant\n⟦<think>\n\n</think>\n\nHi, assistant<|im_end|>⟧\n"
    )
