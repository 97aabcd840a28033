"""Rows as people publish them, and the dialogue that each is: learned turns are in capitals."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pytest

from finetune_contract.recipe import DataFormat
from finetune_trainer.data.reading.reader import RowReader
from finetune_trainer.data.reading.written import written
from finetune_trainer.data.rows import Row, TextPair


class Published(NamedTuple):
    """A kind of row, and what it is read as."""

    name: str
    row: dict[str, Any]
    turns: list[str]
    ignored: tuple[str, ...] = ()


def q(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def a(text: Any, **fields: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **fields}


def chat(*turns: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"messages": list(turns), **fields}


def flagged(**flags: Any) -> list[dict[str, Any]]:
    """Return a dialogue whose two answers have these fields; None for none."""
    first, second = (
        {name: both[i] for name, both in flags.items() if both[i] is not None} for i in (0, 1)
    )
    return [q("Name a tree."), a("A rock.", **first), q("No, a tree."), a("Oak.", **second)]


def share(*turns: tuple[str, str], **fields: Any) -> dict[str, Any]:
    return {"conversations": [{"from": who, "value": what} for who, what in turns], **fields}


CORRECTED = ["user: Name a tree.", "assistant: A rock.", "user: No, a tree.", "ASSISTANT: Oak."]
SUM = ["user: 2+3?", "ASSISTANT: 5"]
THOUGHT = ["user: 2+3?", "ASSISTANT: <two and three> 5"]
ADD = {
    "type": "function",
    "function": {"name": "add", "parameters": {"type": "object", "properties": {"a": {}}}},
}
CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 2}'}}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "5"}
CALLED = ["user: 2+3?", "ASSISTANT: add(a=2)", "tool: 5", "ASSISTANT: 5"]

ROWS = [
    # Whether a turn is learned.
    Published("OpenAI weight", chat(*flagged(weight=(0, 1))), CORRECTED),
    Published("OpenAI weight as floats", chat(*flagged(weight=(0.0, 1.0))), CORRECTED),
    Published("Axolotl train", chat(*flagged(train=(False, True))), CORRECTED),
    Published("Axolotl training", chat(*flagged(training=(False, None))), CORRECTED),
    Published("trainable", chat(*flagged(trainable=(False, True))), CORRECTED),
    Published("ms-swift loss", chat(*flagged(loss=(False, True))), CORRECTED),
    Published("ms-swift loss_scale", chat(*flagged(loss_scale=(0.0, 1.0))), CORRECTED),
    Published("loss_mask", chat(*flagged(loss_mask=(0, 1))), CORRECTED),
    Published("torchtune masked", chat(*flagged(masked=(True, False))), CORRECTED),
    Published("flags that agree", chat(*flagged(weight=(0, 1), train=(False, True))), CORRECTED),
    Published("a user turn that is context", chat({**q("2+3?"), "train": False}, a("5")), SUM),
    Published(
        "an empty turn that is context",
        chat(q("2+3?"), a("", weight=0), q("Well?"), a("5")),
        ["user: 2+3?", "assistant:", "user: Well?", "ASSISTANT: 5"],
    ),
    # Reasoning.
    Published("vLLM reasoning", chat(q("2+3?"), a("5", reasoning="two and three")), THOUGHT),
    Published("TRL thinking", chat(q("2+3?"), a("5", thinking="two and three")), THOUGHT),
    Published(
        "reasoning_content", chat(q("2+3?"), a("5", reasoning_content="two and three")), THOUGHT
    ),
    Published(
        "reasoning twice",
        chat(q("2+3?"), a("5", reasoning="two and three", reasoning_content="two and three")),
        THOUGHT,
    ),
    Published("empty reasoning", chat(q("2+3?"), a("5", reasoning="")), SUM),
    Published(
        "Anthropic thinking part",
        chat(
            q("2+3?"),
            a([{"type": "thinking", "thinking": "two and three"}, {"type": "text", "text": "5"}]),
        ),
        THOUGHT,
    ),
    Published(
        "Mistral thinking part",
        chat(
            q("2+3?"),
            a(
                [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "two and three"}]},
                    {"type": "text", "text": "5"},
                ]
            ),
        ),
        THOUGHT,
    ),
    Published(
        "reasoning beside an answer",
        {"question": "2+3?", "answer": "5", "reasoning": "two and three"},
        THOUGHT,
    ),
    # Arrow's nulls.
    Published(
        "nulls of other turns",
        chat(
            {**q("2+3?"), "tool_calls": None, "thinking": None, "weight": None, "name": None},
            a("5", thinking="two and three", tool_calls=None, id=None),
        ),
        THOUGHT,
    ),
    Published(
        "nulls of other rows",
        chat(q("2+3?"), a("5"), prompt=None, chosen=None, images=None, id=None),
        SUM,
    ),
    Published(
        "nulls in a call",
        chat(
            q("2+3?"),
            a(
                None,
                tool_calls=[
                    {
                        "id": None,
                        "index": None,
                        "function": {"name": "add", "arguments": {"a": 2, "city": None}},
                    }
                ],
            ),
            {"role": "tool", "content": "5"},
            a("5", tool_calls=[]),
        ),
        CALLED,
    ),
    # Tools.
    Published(
        "tools", chat(q("2+3?"), a(None, tool_calls=[CALL]), RESULT, a("5"), tools=[ADD]), CALLED
    ),
    Published(
        "tools as JSON text",
        chat(q("2+3?"), a(None, tool_calls=[CALL]), RESULT, a("5"), tools=json.dumps([ADD])),
        CALLED,
    ),
    Published(
        "each tool as JSON text",
        chat(q("2+3?"), a(None, tool_calls=[CALL]), RESULT, a("5"), tools=[json.dumps(ADD)]),
        CALLED,
    ),
    Published("no tools as text", chat(q("2+3?"), a("5"), tools=""), SUM),
    Published(
        "calls as JSON text",
        chat(q("2+3?"), a("", tool_calls=json.dumps([CALL])), RESULT, a("5")),
        CALLED,
    ),
    Published(
        "function_call",
        chat(
            q("2+3?"),
            a(None, function_call=CALL["function"]),
            {"role": "function", "name": "add", "content": "5"},
            a("5"),
            functions=[ADD["function"]],
        ),
        CALLED,
    ),
    Published(
        "function_call with text",
        chat(q("2+3?"), a("I will add.", function_call=CALL["function"])),
        ["user: 2+3?", "ASSISTANT: I will add. add(a=2)"],
    ),
    Published(
        "calls without text or id",
        chat(
            q("2+3?"),
            {"role": "assistant", "tool_calls": [CALL]},
            {"role": "tool", "name": "add", "content": "5"},
            a("5"),
        ),
        CALLED,
    ),
    Published(
        "calls written as text (Hermes)",
        chat(q("2+3?"), a("<tool_call>{}</tool_call>"), RESULT, a("5")),
        ["user: 2+3?", "ASSISTANT: <tool_call>{}</tool_call>", "tool: 5", "ASSISTANT: 5"],
    ),
    Published(
        "request options",
        chat(q("2+3?"), a("5"), parallel_tool_calls=False, tool_choice="auto"),
        SUM,
        ("parallel_tool_calls", "tool_choice"),
    ),
    # Parts.
    Published(
        "text parts",
        chat(
            q([{"type": "text", "text": "2+"}, {"type": "text", "text": "3?"}]),
            a([{"type": "text", "text": "5"}]),
        ),
        SUM,
    ),
    Published(
        "parts with nulls",
        chat(q([{"type": "text", "text": "2+3?", "image_url": None}]), a("5")),
        SUM,
    ),
    Published(
        "Responses API parts",
        chat(
            q([{"type": "input_text", "text": "2+3?"}]), a([{"type": "output_text", "text": "5"}])
        ),
        SUM,
    ),
    Published(
        "Bedrock parts",
        {"system": [{"text": "Be brief."}], **chat(q([{"text": "2+3?"}]), a([{"text": "5"}]))},
        ["system: Be brief.", *SUM],
    ),
    Published("parts that are texts", chat(q(["2+", "3?"]), a("5")), SUM),
    # Roles and their order.
    Published(
        "developer",
        chat({"role": "developer", "content": "Be brief."}, q("2+3?"), a("5")),
        ["developer: Be brief.", *SUM],
    ),
    Published(
        "capitals (Cohere)",
        chat(
            {"role": "System", "content": "Be brief."},
            {"role": "User", "content": "2+3?"},
            {"role": "Chatbot", "content": "5"},
        ),
        ["system: Be brief.", *SUM],
    ),
    Published("model (Gemma)", chat(q("2+3?"), {"role": "model", "content": "5"}), SUM),
    Published(
        "human and gpt as roles",
        chat({"role": "human", "content": "2+3?"}, {"role": "gpt", "content": "5"}),
        SUM,
    ),
    Published(
        "a role of one's own",
        chat({"role": "critic", "content": "Be kind."}, q("2+3?"), a("5")),
        ["critic: Be kind.", *SUM],
    ),
    Published(
        "two questions",
        chat(q("2+3?"), q("Quick!"), a("5")),
        ["user: 2+3?", "user: Quick!", "ASSISTANT: 5"],
    ),
    Published("the assistant begins", chat(a("Hi."), q("2+3?"), a("5")), ["ASSISTANT: Hi.", *SUM]),
    Published(
        "a late system turn",
        chat(q("2+3?"), {"role": "system", "content": "Now."}, a("5")),
        ["user: 2+3?", "system: Now.", "ASSISTANT: 5"],
    ),
    Published("pre-training (ms-swift)", chat(a("I love music.")), ["ASSISTANT: I love music."]),
    Published("the user ends", chat(q("2+3?"), a("5"), q("Thanks.")), [*SUM, "user: Thanks."]),
    # ShareGPT.
    Published("ShareGPT", share(("human", "2+3?"), ("gpt", "5"), id="x"), SUM, ("id",)),
    Published(
        "ShareGPT with its system",
        share(("human", "2+3?"), ("gpt", "5"), system="Be brief."),
        ["system: Be brief.", *SUM],
    ),
    Published(
        "ShareGPT's system turn",
        share(("system", "Be brief."), ("human", "2+3?"), ("gpt", "5"), system="Be brief."),
        ["system: Be brief.", *SUM],
    ),
    Published("ShareGPT's empty system", share(("human", "2+3?"), ("gpt", "5"), system=""), SUM),
    Published("ShareGPT of other bots", share(("user", "2+3?"), ("chatgpt", "5")), SUM),
    Published(
        "LLaMA-Factory's tools",
        share(
            ("human", "2+3?"),
            ("function_call", '{"name": "add", "arguments": {"a": 2}}'),
            ("observation", "5"),
            ("gpt", "5"),
            tools=json.dumps([ADD["function"]]),
        ),
        CALLED,
    ),
    Published(
        "ms-swift's parallel calls",
        chat(
            q("2+3?"),
            a("Both."),
            {"role": "tool_call", "content": '{"name": "add", "arguments": "{\\"a\\": 2}"}'},
            {"role": "tool_call", "content": '{"name": "add", "arguments": {"a": 3}}'},
            {"role": "tool_response", "content": "5"},
            a("5"),
        ),
        ["user: 2+3?", "ASSISTANT: Both. add(a=2) add(a=3)", "tool: 5", "ASSISTANT: 5"],
    ),
    Published(
        "Axolotl's weights on ShareGPT",
        {
            "conversations": [
                {"from": "human", "value": "2+3?", "weight": 0},
                {"from": "gpt", "value": "6", "weight": 0},
                {"from": "human", "value": "No."},
                {"from": "gpt", "value": "5", "weight": 1},
            ]
        },
        ["user: 2+3?", "assistant: 6", "user: No.", "ASSISTANT: 5"],
    ),
    Published(
        "Pygmalion",
        {"conversations": [{"role": "user", "value": "2+3?"}, {"role": "assistant", "value": "5"}]},
        SUM,
    ),
    Published(
        "conversation with human and assistant",
        {"system": "Be brief.", "conversation": [{"human": "2+3?", "assistant": "5"}]},
        ["system: Be brief.", *SUM],
    ),
    Published("messages as JSON text", {"messages": json.dumps([q("2+3?"), a("5")])}, SUM),
    Published(
        "turns with more keys (LMSYS, WildChat)",
        {
            "conversation_id": "x",
            "conversation": [{**q("2+3?"), "language": "en"}, a("5")],
            "redacted": False,
        },
        SUM,
        ("conversation_id", "messages[].language", "redacted"),
    ),
    Published(
        "UltraChat",
        {"prompt": "2+3?", "prompt_id": "x", **chat(q("2+3?"), a("5"))},
        SUM,
        ("prompt", "prompt_id"),
    ),
    Published(
        "messages beside an answer (OpenR1)",
        {"problem": "2+3?", "answer": "5", **chat(q("2+3?"), a("5"))},
        SUM,
        ("answer", "problem"),
    ),
    # Prompts and answers.
    Published("text", {"prompt": "2+3?", "completion": "5"}, SUM),
    Published("lists", {"prompt": [q("2+3?")], "completion": [a("5")]}, SUM),
    Published("a list and text", {"prompt": [q("2+3?")], "completion": "5"}, SUM),
    Published(
        "an answer in the prompt's list is context",
        {"prompt": [q("Hi."), a("Hi."), q("2+3?")], "completion": [a("5")]},
        ["user: Hi.", "assistant: Hi.", *SUM],
    ),
    Published(
        "Alpaca",
        {
            "instruction": "Turn into past tense.",
            "input": "I walk.",
            "output": "I walked.",
            "text": "Below is",
        },
        ["user: Turn into past tense.\nI walk.", "ASSISTANT: I walked."],
        ("text",),
    ),
    Published("Alpaca without input", {"instruction": "2+3?", "input": "", "output": "5"}, SUM),
    Published(
        "Alpaca's system and history",
        {
            "instruction": "And 3+3?",
            "input": "",
            "output": "6",
            "system": "Be brief.",
            "history": [["2+3?", "5"]],
        },
        ["system: Be brief.", *SUM, "user: And 3+3?", "ASSISTANT: 6"],
    ),
    Published(
        "Dolly",
        {
            "instruction": "Who?",
            "context": "Ada wrote it.",
            "response": "Ada.",
            "category": "closed_qa",
        },
        ["user: Who?\nAda wrote it.", "ASSISTANT: Ada."],
        ("category",),
    ),
    Published(
        "OpenOrca",
        {"id": "x", "system_prompt": "Be brief.", "question": "2+3?", "response": "5"},
        ["system: Be brief.", *SUM],
        ("id",),
    ),
    Published(
        "OpenOrca's empty system", {"system_prompt": "", "question": "2+3?", "response": "5"}, SUM
    ),
    Published("GSM8K", {"question": "2+3?", "answer": "5"}, SUM),
    Published(
        "MetaMathQA",
        {"query": "2+3?", "response": "5", "type": "GSM", "original_question": "2+3?"},
        SUM,
        ("original_question", "type"),
    ),
    Published("MATH", {"problem": "2+3?", "level": "Level 1", "solution": "5"}, SUM, ("level",)),
    Published("input and output", {"input": "2+3?", "output": "5"}, SUM),
    Published("capitals in columns", {"Question": "2+3?", "Response": "5"}, SUM),
    Published(
        "completion beside an answer",
        {"prompt": "2+3?", "completion": "5", "answer": "5"},
        SUM,
        ("answer",),
    ),
    Published("KTO's good rows", {"prompt": "2+3?", "completion": "5", "label": True}, SUM),
    Published(
        "a class as label", {"prompt": "2+3?", "completion": "5", "label": 3}, SUM, ("label",)
    ),
    Published(
        "history as messages",
        {"query": "2+3?", "response": "5", "history": [q("Hi."), a("Hi.")]},
        ["user: Hi.", "ASSISTANT: Hi.", *SUM],
    ),
    Published(
        "text with tools",
        {"prompt": "2+3?", "completion": [a(None, tool_calls=[CALL])], "tools": [ADD]},
        CALLED[:2],
    ),
]


def told(row: Row) -> list[str]:
    """Return the turns of a row in short: a learned one's role is in capitals."""
    dialogue = row.dialogue() if isinstance(row, TextPair) else row
    lines = []
    for index, turn in enumerate(dialogue.messages):
        role = turn.role.upper() if dialogue.learns(index) else turn.role
        calls = [
            f"{call.name}({', '.join(f'{k}={v}' for k, v in call.arguments.items())})"
            for call in turn.tool_calls
        ]
        thought = f"<{turn.reasoning}>" if turn.reasoning else ""
        lines.append(" ".join(filter(None, (f"{role}:", thought, turn.content, *calls))))
    return lines


@pytest.mark.parametrize("published", ROWS, ids=lambda published: published.name)
def test_a_published_row_is_read_as_the_dialogue_that_it_is(published: Published) -> None:
    row = RowReader(DataFormat.AUTO)(json.loads(json.dumps(published.row)))
    assert told(row) == published.turns
    assert row.ignored == published.ignored
    again = RowReader(DataFormat.AUTO)(json.loads(json.dumps(written(row))))
    assert (told(again), again.ignored) == (published.turns, ())
