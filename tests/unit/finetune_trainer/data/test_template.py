"""How templates of other kinds are met; test_masks.py has the well-known ones.

The tokenizer's tokens are bytes and its pad token is its end-of-turn token, as SmolLM2's is, so a
mask made from token ids would be wrong here.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from finetune_contract.reasons import Reason
from finetune_trainer.data.encode import Encoder
from finetune_trainer.data.faults import Kind, RowError
from finetune_trainer.data.messages import Message, ToolCall
from finetune_trainer.data.rows import Dialogue, Row
from finetune_trainer.process.errors import Failure
from support.models.chat_templates import QWEN3
from support.models.encoded_rows import pieces, turns
from support.models.faulty_files import THOUGHTS_FIRST
from support.models.tiny_llama import CHATML, byte_tokenizer

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


@pytest.mark.parametrize(
    ("template", "row", "message"),
    [
        (CHATML + "{{ strftime_now(today) }}", turns("a", "b"), "asks for the time"),
        (None, turns("a", "b"), "has no chat template"),
    ],
)
def test_templates_that_can_not_be_learned_from_are_refused(
    template: str | None, row: Row, message: str
) -> None:
    with pytest.raises(Failure, match=message) as caught:
        pieces(row, template)
    assert caught.value.reason is Reason.MODEL_UNSUPPORTED


@pytest.mark.parametrize(
    ("template", "row", "message"),
    [
        (
            "{{ messages | length }}" + CHATML.replace("message['content']", "message.content[:9]"),
            turns("a", "b" * 9, "c" * 9, "d"),
            "renders the end of a turn .assistant. differently",
        ),
    ],
)
def test_rows_whose_turns_can_not_be_told_apart(template: str, row: Row, message: str) -> None:
    with pytest.raises(RowError, match=message) as caught:
        pieces(row, template)
    assert caught.value.kind is Kind.TEMPLATE_UNSTABLE


def test_a_rendering_that_changes_at_its_beginning_is_measured() -> None:
    counted = "{{ messages | length }}" + CHATML
    assert pieces(turns("a", "b", "c", "d"), counted) == [
        (False, "4<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n"),
        (True, "b<|im_end|>"),
        (False, "\n<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n"),
        (True, "d<|im_end|>"),
        (False, "\n"),
    ]


def test_a_token_after_the_last_turn_does_not_hide_the_end_of_the_others() -> None:
    closed = CHATML.replace(
        "{% if add", "{% if not add_generation_prompt %}{{ '<|endoftext|>' }}{% endif %}{% if add"
    )
    assert pieces(turns("a", "b", "c", "d"), closed)[1:4:2] == [
        (True, "b<|im_end|>"),
        (True, "d<|im_end|>"),  # by the tokenizer's own end generation has stopped
    ]


def test_a_template_that_trims() -> None:
    trimmed = CHATML.replace("message['content']", "message['content'] | trim")
    assert pieces(turns(" a ", "  b \n"), trimmed)[1] == (True, "b<|im_end|>")


def test_words_that_a_template_moves_or_quotes_are_no_drop() -> None:
    moved = (
        "{{ '<|im_start|>' + messages[1]['content'] + messages[0]['content'] + '<|im_end|>' }}"
        "{% if messages | length > 2 %}{{ messages[2]['content'] + '<|im_end|>' }}{% endif %}"
    )
    row = turns("a", "b", system="s")
    assert pieces(row, moved)[1] == (True, "b<|im_end|>")


def test_a_turn_that_says_what_another_says_is_missed_too() -> None:
    once = "{% set messages = messages[1:] %}" + CHATML
    with pytest.raises(RowError, match=r"turn 2 \(assistant\) is left out"):
        pieces(turns("mango", "mango"), once)


@pytest.mark.parametrize(
    ("written", "reason"),
    [("message.tool_calls[0].function | tojson", "turn 2 calls a tool"), ("''", "has tool calls")],
)
def test_calls_that_a_template_leaves_out_are_refused_every_time(written: str, reason: str) -> None:
    template = CHATML.replace(
        "message['content'] +", f"message['content'] ~ ({written} if message.tool_calls else '') ~"
    )
    calls = (ToolCall("first", {}), ToolCall("second", {}))
    encoder = Encoder(byte_tokenizer(template), 4096)
    for _ in range(2):
        with pytest.raises(RowError, match=reason) as caught:
            encoder.encode(Dialogue((Message("user", "a"), Message("assistant", "", calls))))
        assert caught.value.kind is Kind.TEMPLATE_DROPS_TOOLS


def test_results_of_tools_may_be_quoted() -> None:
    quoting = CHATML.replace(
        "message['content'] +",
        "(message['content'] | tojson if message['role'] == 'tool' else message['content'] ~ "
        "(message.tool_calls[0].function | tojson if message.tool_calls else '')) +",
    )
    messages = (
        Message("user", "a"),
        Message("assistant", "", (ToolCall("f", {"k": "v"}),)),
        Message("tool", 'so "é"\n'),
        Message("assistant", "b"),
    )
    assert pieces(Dialogue(messages), quoting)[3] == (True, "b<|im_end|>")


def test_a_users_words_about_reasoning_are_words() -> None:
    cut = CHATML.replace("message['content']", "message['content'].split('</think>')[-1]")
    with pytest.raises(RowError, match=r"turn 1 \(user\) is left out"):
        pieces(turns("what is </think>?", "b"), cut)


def test_a_template_that_changes_words_is_told_by_turn() -> None:
    shouting = CHATML.replace("message['content']", "message['content'] | upper")
    with pytest.raises(RowError, match=r"turn 2 \(assistant\) is left out, or changed") as caught:
        pieces(turns("1", "canary"), shouting)
    assert "canary" not in str(caught.value)


def test_the_template_for_tools_is_used_for_rows_with_tools() -> None:
    tools = ({"type": "function", "function": {"name": "zoom"}},)
    fast = byte_tokenizer(None)
    fast.chat_template = {"default": CHATML, "tool_use": "{{ tools | tojson }}" + CHATML}
    encoder = Encoder(fast, 4096)
    with_tools = encoder.encode(replace(turns("a", "b"), tools=tools))
    assert fast.decode(with_tools.tokens).startswith('[{"type": "function", "function": {"name"')
    assert fast.decode(encoder.encode(turns("a", "b")).tokens).startswith("<|im_start|>user")


def test_a_template_that_tells_the_date_tells_the_same_every_day() -> None:
    dated = (
        "{% if strftime_now is defined %}{{ strftime_now('%d %b %Y') }}{% endif %}"
        '{{ strftime_now( "%Y" ) }}' + CHATML
    )
    assert pieces(turns("a", "b"), dated)[0][1].startswith("26 Jul 20242024<|im_start|>user")


@pytest.mark.parametrize("written", ["call.function.arguments", "call.function.arguments | string"])
def test_a_call_whose_arguments_a_template_writes_as_python_is_given_as_json(written: str) -> None:
    template = CHATML.replace(
        "message['content'] +",
        "message['content'] + (message.tool_calls[0].function.name ~ "
        f"({written.replace('call', 'message.tool_calls[0]')}) if message.tool_calls else '') +",
    )
    row = Dialogue((Message("user", "a"), Message("assistant", "", (ToolCall("f", {"k": "v"}),))))
    assert pieces(row, template)[1] == (True, 'f{"k": "v"}<|im_end|>')


def test_a_turn_that_is_not_to_be_learned_is_context() -> None:
    row = turns("a", "b", "c", "d")
    first, second, *rest = row.messages
    context = replace(row, messages=(first, second._replace(learned=False), *rest))
    learned = [text for learned, text in pieces(context, CHATML) if learned]
    assert learned == ["d<|im_end|>"]
    *rest, last = row.messages
    ended = replace(row, messages=(*rest, last._replace(learned=False)))
    for template in (CHATML, QWEN3):
        assert [text for learned, text in pieces(ended, template) if learned] == ["b<|im_end|>"]


def test_a_developer_is_the_system_where_the_template_knows_none() -> None:
    row = Dialogue((Message("developer", "be kind"), *turns("a", "b").messages))
    assert pieces(row, QWEN3)[0][1].startswith("<|im_start|>system\nbe kind<|im_end|>")
    known = "{# developer #}" + CHATML
    assert pieces(row, known)[0][1].startswith("<|im_start|>developer\nbe kind<|im_end|>")


def test_the_user_may_have_the_last_word() -> None:
    row = turns("a", "b", "c")
    assert [text for learned, text in pieces(row, CHATML) if learned] == ["b<|im_end|>"]
    thoughtful = Encoder(byte_tokenizer(THOUGHTS_FIRST), 4096).encode(row)
    assert thoughtful.warnings == (Kind.REASONING_NOT_OPENED,)


def test_dropped_reasoning_is_told() -> None:
    def dropped(row: Row, template: str) -> bool:
        return (
            Kind.REASONING_DROPPED in Encoder(byte_tokenizer(template), 4096).encode(row).warnings
        )

    assert not dropped(turns("a", "<think>x</think>b"), QWEN3)
    assert dropped(turns("a", "<think>x</think>b", "c", "d"), QWEN3)
    field = Dialogue((Message("user", "a"), Message("assistant", "b", reasoning="why")))
    assert not dropped(field, QWEN3)
    with pytest.raises(RowError, match="turn 2 has reasoning that") as caught:
        dropped(field, CHATML)
    assert caught.value.kind is Kind.LAST_REASONING_DROPPED
    same = Dialogue((Message("user", "why"), Message("assistant", "why not", reasoning="why")))
    assert not dropped(same, QWEN3)
    with pytest.raises(RowError, match="turn 2 has reasoning that"):
        dropped(same, CHATML)
    context = (*field.messages[:1], field.messages[1]._replace(learned=False))
    rest = (Message("user", "c"), Message("assistant", "d"))
    assert not dropped(Dialogue(context + rest), CHATML)
    with pytest.raises(RowError, match="turn 2 has reasoning that"):
        dropped(Dialogue((*field.messages, rest[0], rest[1]._replace(learned=False))), CHATML)


THOUGHT = "<think>\nso\n</think>\n\n"


@pytest.mark.parametrize(
    ("opener", "row", "learned", "warnings"),
    [
        # As Qwen3.5 does: asked to reason; earlier turns stand without.
        ("<think>\n", turns("a", "b", "c", THOUGHT + "d"), ["b", "so\n</think>\n\nd"], ()),
        # As R1's distilled models do: asked to reason; every turn stands without.
        ("<think>\n", turns("a", "<b>"), ["<b>"], (Kind.REASONING_NOT_OPENED,)),
        # Asked not to reason; turns stand as if that had not been said.
        ("<think>\n\n</think>\n\n", turns("a", "b"), ["b"], (Kind.REASONING_NOT_OPENED,)),
    ],
)
def test_headers_that_open_reasoning(
    opener: str, row: Row, learned: list[str], warnings: tuple[Kind, ...]
) -> None:
    template = CHATML.replace("assistant\n' }}", f"assistant\n{opener}' }}}}")
    assert [text for is_learned, text in pieces(row, template) if is_learned] == [
        f"{words}<|im_end|>" for words in learned
    ]
    assert Encoder(byte_tokenizer(template), 4096).encode(row).warnings == warnings


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("'no system'", "chat template: no system"),
        ("'no ' + messages[0]['content']", r"chat template$"),
    ],
)
def test_a_row_that_the_template_refuses_is_a_fault_of_the_row(said: str, told: str) -> None:
    with pytest.raises(RowError, match=told) as caught:
        pieces(turns("canary", "b"), f"{{{{ raise_exception({said}) }}}}")
    assert "canary" not in str(caught.value)
