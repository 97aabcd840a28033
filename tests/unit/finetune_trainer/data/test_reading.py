"""Every fault of a row is told by name, and no fault tells the row."""

from __future__ import annotations

import json
from typing import Any

import pytest

from finetune_contract.recipe import DataFormat
from finetune_trainer.data.faults import RowError
from finetune_trainer.data.lines import parse_line
from finetune_trainer.data.messages import Message, ToolCall
from finetune_trainer.data.reading.reader import RowReader
from finetune_trainer.data.rows import Dialogue, Row, TextPair, row_key

SECRET = "canary-7f3a"
USER = {"role": "user", "content": SECRET}
BOT = {"role": "assistant", "content": SECRET}
SYSTEM = {"role": "system", "content": SECRET}
FUNCTION = {"name": "f", "arguments": '{"x": 1}'}
CALLS = {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "function": FUNCTION}]}
RESULT = {"role": "tool", "content": SECRET, "tool_call_id": "c"}
RESULT_2 = {"role": "tool", "content": "2", "name": "f"}

BAD_LINES = {
    b'{"messages": [': "is not JSON: Expecting value at column",
    b'"canary-7f3a"': "is not a JSON object",
    b'{"a": "\xff"}': "byte 8 is not UTF-8",
    b"[" * 101 + b"]" * 101: "nested deeper than 100",
    b'{"a": ' + b"[" * 100_000: "nested deeper than 100",
}

BAD_MESSAGES: dict[str, Any] = {
    "'messages' is not a list": SECRET,
    "'messages' is not JSON": f"[{SECRET}",
    "'messages' is empty": [],
    "messages[0] is not an object": [SECRET],
    "messages[0] has no 'role'": [{"content": SECRET}],
    "messages[0].role is not a role": [{"role": 1, "content": SECRET}],
    "messages[1] has no 'content' (found 'contents')": [
        USER,
        {"role": "assistant", "contents": SECRET},
    ],
    "messages[1].role is unknown; is 'assistant' meant?": [
        USER,
        {"role": "assistent", "content": SECRET},
    ],
    "messages[0].content is null": [{"role": "user", "content": None}, BOT],
    "messages[0].content is a number, not text": [{"role": "user", "content": 5}, BOT],
    "messages[0].content[1] is a part of type 'image_url', not text": [
        {"role": "user", "content": [SECRET, {"type": "image_url", "image_url": {"url": SECRET}}]},
        BOT,
    ],
    "messages[0].content[0] is a part of type unknown": [
        {"role": "user", "content": [{"type": f"{SECRET} {SECRET}"}]},
        BOT,
    ],
    "messages[0].content[0] is a part without text": [
        {"role": "user", "content": [{"type": "text", "text": 1}]},
        BOT,
    ],
    "messages[0].content[0] is neither text nor an object": [{"role": "user", "content": [1]}, BOT],
    "messages[1] is an assistant turn with empty content": [
        USER,
        {"role": "assistant", "content": " \n"},
    ],
    "has no assistant turn to learn from": [SYSTEM, USER],
    "has no assistant turn that is to be learned": [USER, {**BOT, "weight": 0}],
    "turn 3 has the tool_call_id of no call": [USER, CALLS, {**RESULT, "tool_call_id": "x"}, BOT],
    "messages[0] is a user turn with tool_calls": [{**CALLS, "role": "user"}, BOT],
    "messages[1].tool_calls is not a list": [USER, {**BOT, "tool_calls": {"a": 1}}],
    "messages[1].tool_calls is not JSON": [USER, {**BOT, "tool_calls": SECRET}],
    "tool_calls[0] is not JSON": [USER, {**BOT, "tool_calls": [SECRET]}],
    "tool_calls[0] is not an object with a function": [USER, {**BOT, "tool_calls": [[SECRET]]}],
    "tool_calls[0] has no function name": [USER, {**BOT, "tool_calls": [{"name": ""}]}],
    "tool_calls[0] has no arguments": [USER, {**BOT, "tool_calls": [{"name": "f"}]}],
    "arguments is not JSON": [USER, {**BOT, "tool_calls": [{"name": "f", "arguments": SECRET}]}],
    "messages[1] has tool_calls as well as function_call": [
        USER,
        {**CALLS, "function_call": FUNCTION},
    ],
    "messages[1].function_call has no function name": [USER, {**BOT, "function_call": {"x": 1}}],
    "messages[1].value holds no call": [
        {"from": "human", "value": SECRET},
        {"from": "function_call", "value": " "},
    ],
    "messages[1].value is not JSON": [
        {"from": "human", "value": SECRET},
        {"from": "function_call", "value": SECRET},
    ],
    "messages[1].reasoning_content is a number": [USER, {**BOT, "reasoning_content": 1}],
    "messages[0] is a user turn with reasoning": [{**USER, "thinking": SECRET}, BOT],
    "messages[1] has two different texts as its reasoning": [
        USER,
        {**BOT, "thinking": SECRET, "reasoning": "another"},
    ],
    "messages[1].name is not text": [USER, {**BOT, "name": []}],
    "messages[1] has 'reasoning_contents'; is 'reasoning_content' meant?": [
        USER,
        {**BOT, "reasoning_contents": ""},
    ],
    "messages[1].'weight' is neither 0 nor 1": [USER, {**BOT, "weight": "0"}],
    "messages[1].'weight' is a fraction; put rows that count less": [USER, {**BOT, "weight": 0.5}],
    "messages[1].fields contradict each other": [USER, {**BOT, "weight": 0, "train": True}],
    "messages[0] is a user turn that is to be learned": [{**USER, "train": True}, BOT],
    "messages[1].'train_detail' (Axolotl) can not be obeyed": [
        USER,
        {**BOT, "train_detail": [{"begin_offset": 0, "end_offset": 8, "train": False}]},
    ],
    "messages[1].'refusal' (OpenAI) can not be obeyed": [USER, {**BOT, "refusal": SECRET}],
    "messages[1].'mask' (several) can not be obeyed": [USER, {**BOT, "mask": 0}],
    "messages[0].content[0] holds more than its text": [
        {"role": "user", "content": [{"text": SECRET, "image_url": "a.png"}]},
        BOT,
    ],
    "messages[2].content[0] holds more than its text": [
        USER,
        CALLS,
        {"role": "tool", "content": {"text": SECRET, "score": 3}},
    ],
}
BAD_TOOLS: dict[str, Any] = {
    "'tools' is not a list": {"a": 1},
    "'tools' is not JSON": SECRET,
    "tools[0] is not JSON": [SECRET],
    "tools[0] is not an object": [[SECRET]],
    "tools[0] has no function name": [{"type": "function", "function": {"parameters": {}}}],
    "tools[1].parameters is not a JSON schema": [{"name": "f"}, {"name": "g", "parameters": "x"}],
}

BAD_PAIRS: dict[str, Any] = {
    "has no 'completion' (found 'completions')": {"prompt": SECRET, "completions": SECRET},
    "has no 'prompt'": {"completion": SECRET},
    "has an empty completion": {"prompt": SECRET, "completion": "  "},
    "'prompt' is neither text nor a list of messages": {"prompt": 1, "completion": SECRET},
    "'completion' is neither text nor a list of messages": {"prompt": SECRET, "completion": 1},
    "'completion' is empty": {"prompt": [USER], "completion": []},
    "has no assistant turn to learn from": {"prompt": [USER, BOT], "completion": [USER]},
    "prompt[0].content is a number": {
        "prompt": [{"role": "user", "content": 1}],
        "completion": SECRET,
    },
    "'history' is no list of pairs of texts": {
        "query": SECRET,
        "response": SECRET,
        "history": [[SECRET]],
    },
    "response and answer, of which each may be the completion": {
        "question": SECRET,
        "response": SECRET,
        "answer": SECRET,
    },
    "has 'context' beside 'question'": {"question": SECRET, "context": SECRET, "answer": SECRET},
    "'label' says that it is not to be learned": {
        "prompt": SECRET,
        "completion": SECRET,
        "label": False,
    },
    "'Label' says that it is not to be learned": {
        "prompt": SECRET,
        "completion": SECRET,
        "Label": "False",  # as a cell of CSV has it
    },
    "'Weight' says that it is not to be learned": {
        "prompt": SECRET,
        "completion": SECRET,
        "Weight": 0,
    },
    "'chosen' (TRL, LLaMA-Factory) can not be obeyed": {
        "prompt": SECRET,
        "completion": SECRET,
        "chosen": False,
    },
    "has a 'completion' that begins with the prompt again": {
        "prompt": SECRET,
        "completion": [USER, BOT],
    },
    "'input_ids' (TRL, Axolotl) can not be obeyed": {
        "prompt": SECRET,
        "completion": SECRET,
        "input_ids": [1, 2],
    },
    "'reasoning' stands beside turns": {
        "prompt": [USER],
        "completion": [{**BOT, "thinking": "another"}],
        "reasoning": SECRET,
    },
}
BAD_ROWS: dict[str, Any] = {
    "has messages as well as prompt or completion": {"messages": [USER, BOT], "prompt": "other"},
    "has 'response' beside turns that end before the answer": {
        "messages": [USER, BOT, USER],
        "response": SECRET,
    },
    "neither messages nor prompt and completion (found 'mesages')": {"mesages": []},
    "neither messages nor prompt and completion; set data.columns": {SECRET: []},
    "it is text alone": {"text": SECRET},
    "it is segments of Axolotl's": {"segments": [{"label": True, "text": SECRET}]},
    "has tools and functions; remove one": {"messages": [USER, BOT], "tools": [], "functions": []},
    "beside a system turn that says another thing": {
        "messages": [SYSTEM, USER, BOT],
        "system": "another",
    },
    "'thinking' stands beside the turns": {"messages": [USER, BOT], "thinking": SECRET},
    "'images' (TRL, LLaMA-Factory, ms-swift) can not be obeyed: only text": {
        "messages": [USER, BOT],
        "images": ["a.png"],
    },
    "has 'chosen': SFT does not learn from which answer is better": {
        "prompt": SECRET,
        "chosen": SECRET,
        "rejected": SECRET,
    },
    "'rejected_response' (ms-swift) can not be obeyed": {
        "messages": [USER, BOT],
        "rejected_response": SECRET,
    },
}


def read(row: Any, data_format: DataFormat = DataFormat.AUTO, **columns: str) -> Row:
    return RowReader(data_format, columns)(row)


@pytest.mark.parametrize(("line", "reason"), list(BAD_LINES.items()))
def test_bad_lines(line: bytes, reason: str) -> None:
    with pytest.raises(RowError) as caught:
        parse_line(line)
    assert reason in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("reason", "row"),
    [
        *((reason, {"messages": messages}) for reason, messages in BAD_MESSAGES.items()),
        *(
            (reason, {"messages": [USER, BOT], "tools": tools})
            for reason, tools in BAD_TOOLS.items()
        ),
        *BAD_PAIRS.items(),
        *BAD_ROWS.items(),
    ],
)
def test_bad_rows(reason: str, row: Any) -> None:
    with pytest.raises(RowError) as caught:
        read(row)
    assert reason in str(caught.value)
    assert SECRET not in str(caught.value)


def test_a_row_of_the_other_format_is_told() -> None:
    messages, pair = {"messages": [USER, BOT]}, {"prompt": "a", "completion": "b"}
    with pytest.raises(RowError, match="is written as Messages in a file of PromptCompletion"):
        read(messages, DataFormat.PROMPT_COMPLETION)
    with pytest.raises(RowError, match="is written as PromptCompletion in a file of Messages"):
        read(pair, DataFormat.MESSAGES)
    reader = RowReader(DataFormat.AUTO)
    reader(pair)
    with pytest.raises(RowError, match="is written as Messages in a file of PromptCompletion"):
        reader(messages)


def test_a_format_chooses_between_two() -> None:
    both = {"messages": [USER, BOT], "prompt": "a", "completion": "b"}
    assert isinstance(read(both, DataFormat.MESSAGES), Dialogue)
    pair = read(both, DataFormat.PROMPT_COMPLETION)
    assert (pair, pair.ignored) == (TextPair("a", "b"), ("messages",))
    with pytest.raises(RowError, match=r"data\.train\[\]\.format"):
        read(both)
    asked = read({"question": "q", "context": "c", "answer": "a"}, DataFormat.PROMPT_COMPLETION)
    assert asked.ignored == ("context",)


def test_good_rows() -> None:
    turns = tuple(Message(m["role"], m["content"]) for m in (SYSTEM, USER, BOT))
    extra = parse_line(json.dumps({"messages": [SYSTEM, USER, BOT], "id": 3}).encode())
    assert read(extra) == Dialogue(turns)
    assert read({"prompt": [SYSTEM, USER], "completion": [BOT]}) == Dialogue(turns, learn_from=2)
    assert read({"prompt": "", "completion": " b"}) == TextPair("", " b")
    assert read({"Prompt": "x", "prompt": "a", "completion": "b"}) == TextPair("a", "b")
    assert read({"messages": [SYSTEM, USER, BOT], "reasoning": ""}) == Dialogue(turns)


def test_tools_and_calls_however_written() -> None:
    wrapped = {"type": "function", "function": {"name": "f", "parameters": {}}}
    bare = [{"name": "f", "arguments": {"x": 1}}, {"function": FUNCTION}]
    turns = [USER, {**BOT, "tool_calls": bare}, RESULT | {"tool_call_id": None}, RESULT_2, BOT]
    tools = [wrapped, wrapped["function"]]
    for given, calls in ((tools, bare), (json.dumps(tools), json.dumps(bare))):
        turns[1] = {**BOT, "tool_calls": calls}
        row = read({"messages": turns, "tools": given})
        assert isinstance(row, Dialogue)
        assert row.tools == (wrapped, wrapped)
        call = ToolCall("f", {"x": 1})
        assert row.messages[1] == Message("assistant", SECRET, (call, call))
        assert row.messages[3] == Message("tool", "2", name="f")


def test_a_dialogue_may_end_with_a_call_and_think() -> None:
    row = read({"messages": [USER, {**CALLS, "reasoning_content": "so"}]})
    assert isinstance(row, Dialogue)
    assert row.messages[1] == Message(
        "assistant", "", (ToolCall("f", {"x": 1}, "c"),), reasoning="so"
    )


def test_brackets_in_text_are_not_nesting() -> None:
    text = "[{" * 200 + '\\"' + "[" * 200
    assert parse_line(json.dumps({"a": text, "b": "x"}).encode()) == {"a": text, "b": "x"}
    assert parse_line(b'{"a": ' + b"[" * 99 + b"]" * 99 + b"}")


def test_equal_keys_mean_equal_teaching() -> None:
    def key(row: Any) -> int:
        return row_key(read(row))

    plain = {"messages": [USER, BOT]}
    assert key(plain) == key({"id": 3, **plain})
    assert key(plain) != key({"messages": [SYSTEM, USER, BOT]})
    assert key(plain) != key({"messages": [USER, {**BOT, "content": "other"}]})
    assert key(plain) != key({**plain, "tools": [{"name": "f"}]})
    assert key(plain) != key({"messages": [USER, {**BOT, "reasoning_content": "so"}]})
    assert key({"messages": [USER, CALLS]}) != key(
        {"messages": [USER, {**CALLS, "tool_calls": [{"name": "f", "arguments": {"x": 2}}]}]}
    )
    assert key({"prompt": "ab", "completion": "c"}) != key({"prompt": "a", "completion": "bc"})
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert key({"prompt": "a", "completion": "b"}) == key({"messages": turns})
    assert key({"prompt": "a", "completion": "b"}) == key(
        {"prompt": turns[:1], "completion": turns[1:]}
    )
