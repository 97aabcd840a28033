"""Families of templates that render a turn in more than one way.

Each is written for these tests and behaves as its family does; in an expectation, what stands
between ⟦ and ⟧ is learned.
"""

from __future__ import annotations

from typing import Any

import pytest

from finetune_contract.reasons import Reason
from finetune_trainer.data.encode import Encoder
from finetune_trainer.data.ends import turn_ends
from finetune_trainer.data.faults import Kind, RowError
from finetune_trainer.data.messages import Message, ToolCall
from finetune_trainer.data.rows import Dialogue
from finetune_trainer.process.errors import Failure
from support.models.encoded_rows import marked, turns
from support.models.tiny_llama import CHATML, SPECIAL, byte_tokenizer


def calling(*after: Message, reasoning: str | None = None) -> Dialogue:
    """Return a dialogue in which a tool is called."""
    call = ToolCall("add", {"x": 1}, "functions.add:0")
    return Dialogue(
        (Message("user", "q"), Message("assistant", "", (call,), reasoning=reasoning), *after)
    )


RESULT = Message("tool", "r", name="add", call_id="functions.add:0")
ANSWER = Message("assistant", "A")

# The last turn ends with a token of its own, calls with another; a turn says its channel, which the
# header does not; reasoning is `thinking`, and goes once an answer follows.
CHANNELS = """
{%- for m in messages %}
  {%- if m.role == 'assistant' and m.tool_calls %}
    {%- if m.thinking and loop.last %}{{ '<|start|>assistant<|channel|>analysis<|message|>' + m.thinking + '<|end|>' }}{% endif %}
    {{- '<|start|>assistant to=' + m.tool_calls[0].function.name + '<|message|>' }}
    {{- m.tool_calls[0].function.arguments | tojson + '<|call|>' }}
  {%- elif m.role == 'assistant' %}
    {%- if m.thinking and loop.last %}{{ '<|start|>assistant<|channel|>analysis<|message|>' + m.thinking + '<|end|>' }}{% endif %}
    {{- '<|start|>assistant<|channel|>final<|message|>' + m.content }}
    {{- '<|return|>' if loop.last else '<|end|>' }}
  {%- else %}
    {{- '<|start|>' + m.role + '<|message|>' + m.content + '<|end|>' }}
  {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}
"""  # noqa: E501
CHANNELS_SPECIAL = (
    *("<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|call|>", "<|endoftext|>"),
    "<|return|>",
)

# Turns are closed by what opens the next; an empty thought stands where there is none.
MARKERS = """
{{- '<sop>' }}
{%- set ns = namespace(asked=-1) %}
{%- for m in messages %}{% if m.role == 'user' %}{% set ns.asked = loop.index0 %}{% endif %}{% endfor %}
{%- for m in messages %}
  {%- if m.role == 'assistant' %}
    {{- '<|assistant|>\n<think>' }}
    {{- (m.reasoning_content or '') if loop.index0 > ns.asked }}
    {{- '</think>' + ('\n' + m.content if m.content else '') }}
    {%- for call in m.tool_calls or [] %}
      {{- '\n<tool_call>' + call.function.name }}
      {%- for key, value in call.function.arguments.items() %}{{ '<key>' + key + '</key>' + value | string }}{% endfor %}
      {{- '</tool_call>' }}
    {%- endfor %}
  {%- elif m.role == 'tool' %}
    {{- '<|observation|>\n' + m.content }}
  {%- else %}
    {{- '<|' + m.role + '|>\n' + m.content }}
  {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}
"""  # noqa: E501
MARKERS_SPECIAL = (
    *("<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"),
    "<|endoftext|>",
)

# The header opens a thought, which the last turn alone is rendered with; others close one.
OPENED = (
    CHATML.replace("'\n' + message['content']", "'\n' + THOUGHT + message['content']")
    .replace(
        "THOUGHT",
        "('<think>' + message.reasoning_content + '</think>'"
        " if message.reasoning_content and loop.last"
        " else '</think>' if message.role == 'assistant' else '')",
    )
    .replace("assistant\n' }}", "assistant\n<think>' }}")
)

EXPECTED: dict[str, tuple[Dialogue, str, tuple[str, ...], str]] = {
    "the end changes": (
        turns("q", "a", "r", "b"),
        CHANNELS,
        CHANNELS_SPECIAL,
        "<|start|>user<|message|>q<|end|><|start|>assistant⟦<|channel|>final<|message|>a⟧<|end|>"
        "<|start|>user<|message|>r<|end|><|start|>assistant⟦<|channel|>final<|message|>b<|return|>⟧",
    ),
    "channels with reasoning by its own name": (
        Dialogue((Message("user", "q"), ANSWER._replace(reasoning="so"))),
        CHANNELS,
        CHANNELS_SPECIAL,
        "<|start|>user<|message|>q<|end|><|start|>assistant⟦<|channel|>analysis<|message|>so<|end|>"
        "<|start|>assistant<|channel|>final<|message|>A<|return|>⟧",
    ),
    "channels with calls": (
        calling(RESULT, ANSWER, Message("user", "r"), Message("assistant", "B")),
        CHANNELS,
        CHANNELS_SPECIAL,
        '<|start|>user<|message|>q<|end|><|start|>assistant⟦ to=add<|message|>{"x": 1}<|call|>⟧'
        "<|start|>tool<|message|>r<|end|><|start|>assistant⟦<|channel|>final<|message|>A⟧<|end|>"
        "<|start|>user<|message|>r<|end|><|start|>assistant⟦<|channel|>final<|message|>B<|return|>⟧",
    ),
    "the next role closes": (
        turns("q", "a", "r", "b", system="s"),
        MARKERS,
        MARKERS_SPECIAL,
        "<sop><|system|>\ns<|user|>\nq<|assistant|>⟦\n<think></think>\na<|user|>⟧\nr<|assistant|>"
        "⟦\n<think></think>\nb<|user|>⟧",
    ),
    "the next role closes a call": (
        calling(RESULT, ANSWER, reasoning="so"),
        MARKERS,
        MARKERS_SPECIAL,
        "<sop><|user|>\nq<|assistant|>⟦\n<think>so</think>\n<tool_call>add<key>x</key>1</tool_call>"
        "<|observation|>⟧\nr<|assistant|>⟦\n<think></think>\nA<|user|>⟧",
    ),
    "the next role closes a call that is written otherwise": (
        calling(RESULT, ANSWER),
        MARKERS.replace("'</tool_call>'", "(' 0' if last else ' 7') + '</tool_call>'").replace(
            "{%- for call in m", "{%- set last = loop.last %}{%- for call in m"
        ),
        MARKERS_SPECIAL,
        "<sop><|user|>\nq<|assistant|>⟦\n<think></think>\n<tool_call>add<key>x</key>1 7</tool_call>"
        "<|observation|>⟧\nr<|assistant|>⟦\n<think></think>\nA<|user|>⟧",
    ),
    "the last turn calls": (
        calling(),
        MARKERS,
        MARKERS_SPECIAL,
        "<sop><|user|>\nq<|assistant|>⟦\n<think></think>\n<tool_call>add<key>x</key>1</tool_call>"
        "<|observation|>⟧",
    ),
    "the header opens what others close": (
        Dialogue((*turns("q", "a", "r").messages, ANSWER._replace(reasoning="so"))),
        OPENED,
        SPECIAL,
        "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n⟦</think>a<|im_end|>⟧\n"
        "<|im_start|>user\nr<|im_end|>\n<|im_start|>assistant\n<think>⟦so</think>A<|im_end|>⟧\n",
    ),
    "the header holds a channel": (
        turns("q", "a", "r", "<b>"),
        CHATML.replace("assistant\n' }}", "assistant\n<|channel|>thought\n<|end|>' }}"),
        ("<|channel|>", "<|end|>", *SPECIAL),
        "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n⟦a<|im_end|>⟧\n"
        "<|im_start|>user\nr<|im_end|>\n<|im_start|>assistant\n⟦<b><|im_end|>⟧\n",
    ),
    "nothing closes": (
        turns("q", "a", "r", "b"),
        "{% for m in messages %}{{ m.role + ': ' + m.content }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}",
        SPECIAL,
        "user: qassistant: ⟦a⟧user: rassistant: ⟦b<|im_end|>⟧",
    ),
    "text closes the last turn otherwise": (
        turns("q", "a", "r", "b"),
        CHATML.replace("'<|im_end|>'", "('!!' if loop.last else '!')"),
        SPECIAL,
        "<|im_start|>user\nq!\n<|im_start|>assistant\n⟦a!⟧\n<|im_start|>user\nr!\n"
        "<|im_start|>assistant\n⟦b!!\n⟧",
    ),
    "the header is another word": (
        turns("q", "a", "r", "b"),
        CHATML.replace("assistant\n' }}", "bot\n' }}"),
        SPECIAL,
        "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n⟦a<|im_end|>⟧\n"
        "<|im_start|>user\nr<|im_end|>\n<|im_start|>assistant\n⟦b<|im_end|>⟧\n",
    ),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_what_is_learned(name: str) -> None:
    row, template, special, expected = EXPECTED[name]
    assert marked(row, template, special) == expected


# The header opens a thought; of any turn only the answer is kept.
ANSWERS = CHATML.replace("assistant\n' }}", "assistant\n<think>\n' }}").replace(
    "message['content']", "message['content'].split('</think>')[-1]"
)


@pytest.mark.parametrize(
    ("template", "last", "written"),
    [
        (ANSWERS, ANSWER._replace(reasoning="so"), "<think>\n⟦so\n</think>\n\nA"),
        (
            ANSWERS,
            Message("assistant", "<think>\nso\n</think>\n\nA"),
            "<think>\n⟦so\n</think>\n\nA",
        ),
        (ANSWERS, Message("assistant", "so</think>A"), "<think>\n⟦so</think>A"),
        (
            ANSWERS.replace("[-1]", "[-1] | trim"),
            Message("assistant", "<think>so</think>\nA"),
            "<think>\n⟦so</think>\nA",
        ),
        (
            OPENED.replace(" and loop.last", " and false"),
            ANSWER._replace(reasoning="so"),
            "<think>⟦so\n</think>A",
        ),
    ],
)
def test_reasoning_of_the_last_turn_is_learned_where_the_header_opens_it(
    template: str, last: Message, written: str
) -> None:
    earlier = turns("q", "a", "r").messages
    row = Dialogue((*earlier, last))
    text = marked(row, template, SPECIAL)
    assert text.endswith(f"r<|im_end|>\n<|im_start|>assistant\n{written}<|im_end|>⟧\n")
    assert "⟦a<|im_end|>⟧" in text.replace("</think>a", "a")
    assert Encoder(byte_tokenizer(template), 4096).encode(row).warnings == ()


@pytest.mark.parametrize(
    ("template", "special", "expected"),
    [
        (CHANNELS, CHANNELS_SPECIAL, {"<|return|>", "<|call|>"}),
        (MARKERS, MARKERS_SPECIAL, {"<|user|>", "<|observation|>"}),
    ],
    ids=["channels", "markers"],
)
def test_generation_stops_at_what_is_learned_last(
    template: str, special: tuple[str, ...], expected: set[str]
) -> None:
    tokenizer = byte_tokenizer(template, special)
    assert set(tokenizer.convert_ids_to_tokens(list(turn_ends(tokenizer)))) == expected


def test_a_template_that_nothing_could_stop_is_refused() -> None:
    tokenizer: Any = byte_tokenizer(EXPECTED["nothing closes"][1])
    tokenizer.eos_token = None
    with pytest.raises(Failure, match="would not learn to stop") as caught:
        Encoder(tokenizer, 4096)
    assert caught.value.reason is Reason.MODEL_UNSUPPORTED


CALLS = CHATML.replace(
    "message['content'] +", "(message['content'] if not message.tool_calls else WRITTEN) +"
)


def test_a_call_may_be_written_by_its_id_alone() -> None:
    written = "message.tool_calls[0].id ~ message.tool_calls[0].function.arguments | tojson"
    text = marked(calling(RESULT, ANSWER), CALLS.replace("WRITTEN", written), SPECIAL)
    assert '⟦functions.add:0{"x": 1}<|im_end|>⟧' in text


@pytest.mark.parametrize("name", ["reasoning_content", "thinking", "reasoning"])
def test_reasoning_is_given_by_the_name_that_the_template_reads(name: str) -> None:
    template = CHATML.replace("message['content']", f"(message.{name} or '') ~ message['content']")
    row = Dialogue((Message("user", "q"), ANSWER._replace(reasoning="so")))
    assert "⟦soA<|im_end|>⟧" in marked(row, template, SPECIAL)


def test_a_call_that_is_closed_otherwise_ends_where_its_token_does() -> None:
    written = "message.tool_calls[0].function | tojson ~ ('' if loop.last else ' #7')"
    template = CALLS.replace("WRITTEN", written)
    text = marked(calling(RESULT, ANSWER), template, SPECIAL)
    assert '⟦{"name": "add", "arguments": {"x": 1}} #7<|im_end|>⟧' in text
    other = "('<|endoftext|>' if message.tool_calls and not loop.last else '<|im_end|>')"
    changed = template.replace("'<|im_end|>'", other)
    with pytest.raises(RowError, match="what closes an earlier assistant turn") as caught:
        marked(calling(RESULT, ANSWER), changed, SPECIAL)
    assert caught.value.kind is Kind.TEMPLATE_UNSTABLE
