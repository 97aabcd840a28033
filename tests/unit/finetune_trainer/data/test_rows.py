"""Every fault of a row is told by name, and no fault tells the row."""

from __future__ import annotations

import json
from typing import Any

import pytest

from finetune_contract.recipe import DataFormat
from finetune_trainer.data.faults import RowError
from finetune_trainer.data.lines import parse_line
from finetune_trainer.data.messages import Message, ToolCall
from finetune_trainer.data.rows import Dialogue, TextPair, detect_format, parse_row, row_key

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
    b"   ": "is blank",
    b'{"a": "\xff"}': "byte 8 is not UTF-8",
    b"[" * 101 + b"]" * 101: "nested deeper than 100",
    b'{"a": ' + b"[" * 100_000: "nested deeper than 100",
}

BAD_MESSAGES: dict[str, Any] = {
    "'messages' is not a list": SECRET,
    "'messages' is empty": [],
    "messages[0] is not an object": [SECRET],
    "messages[0] has no 'role'": [{"content": SECRET}],
    "messages[1] has no 'content' (found 'contents')": [
        USER,
        {"role": "assistant", "contents": SECRET},
    ],
    "messages[0].role is none of system, user, assistant, tool": [{"role": SECRET, "content": "x"}],
    "messages[0].content is not text": [{"role": "user", "content": [{"type": "image"}]}, BOT],
    "messages[1] is an assistant turn with empty content": [
        USER,
        {"role": "assistant", "content": " \n"},
    ],
    "has no assistant turn": [SYSTEM, USER],
    "has a system turn that is not the first": [USER, SYSTEM, BOT],
    "turn 1 is assistant where user was expected": [BOT, USER, BOT],
    "turn 3 is assistant where user was expected": [USER, BOT, BOT],
    "turn 3 is user where assistant was expected": [SYSTEM, USER, USER, BOT],
    "ends with a user turn": [USER, BOT, USER],
    "ends with a tool turn": [USER, CALLS, RESULT],
    "turn 3 is user where tool was expected: each tool call": [USER, CALLS, USER, BOT],
    "turn 4 is a tool's, but no call is open": [USER, CALLS, RESULT, RESULT, BOT],
    "turn 4 is user where assistant was expected": [USER, CALLS, RESULT, USER, BOT],
    "turn 3 has the tool_call_id of no call": [USER, CALLS, {**RESULT, "tool_call_id": "x"}, BOT],
    "turn 2 has the tool_call_id of no call": [USER, {**BOT, "tool_call_id": "c"}, USER, CALLS],
    "messages[0] is a user turn with tool_calls": [{**CALLS, "role": "user"}, BOT],
    "messages[1].tool_calls is not a list": [USER, {**BOT, "tool_calls": {"a": 1}}],
    "tool_calls[0] is not an object with a function": [USER, {**BOT, "tool_calls": [SECRET]}],
    "tool_calls[0] has no function name": [USER, {**BOT, "tool_calls": [{"name": ""}]}],
    "tool_calls[0] has no arguments": [USER, {**BOT, "tool_calls": [{"name": "f"}]}],
    "arguments is not JSON": [USER, {**BOT, "tool_calls": [{"name": "f", "arguments": SECRET}]}],
    "messages[1].reasoning_content is not text": [USER, {**BOT, "reasoning_content": 1}],
    "messages[1].name is not text": [USER, {**BOT, "name": []}],
    "messages[1] has 'reasoning_contents'; is 'reasoning_content' meant?": [
        USER,
        {**BOT, "reasoning_contents": ""},
    ],
}
BAD_TOOLS: dict[str, Any] = {
    "'tools' is not a list": "[]",
    "tools[0] is not an object": [SECRET],
    "tools[0] has no function name": [{"type": "function", "function": {"parameters": {}}}],
    "tools[1].parameters is not a JSON schema": [{"name": "f"}, {"name": "g", "parameters": "x"}],
}

BAD_PAIRS: dict[str, Any] = {
    "has no 'completion' (found 'completions')": {"prompt": SECRET, "completions": SECRET},
    "has no 'prompt'": {"completion": SECRET},
    "has an empty completion": {"prompt": SECRET, "completion": "  "},
    "must both be text or both be lists": {"prompt": SECRET, "completion": [BOT]},
    "'completion' is empty": {"prompt": [USER], "completion": []},
    "completion begins with a user turn": {"prompt": [USER, BOT], "completion": [USER, BOT]},
    "prompt[0].content is not text": {"prompt": [{"role": "user", "content": 1}], "completion": []},
    "has tools, but prompt and completion are text": {
        "prompt": SECRET,
        "completion": SECRET,
        "tools": [{"name": "f"}],
    },
}


@pytest.mark.parametrize(("line", "reason"), list(BAD_LINES.items()))
def test_bad_lines(line: bytes, reason: str) -> None:
    with pytest.raises(RowError) as caught:
        parse_line(line)
    assert reason in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(("reason", "messages"), list(BAD_MESSAGES.items()))
def test_bad_messages(reason: str, messages: Any) -> None:
    with pytest.raises(RowError) as caught:
        parse_row({"messages": messages}, DataFormat.MESSAGES)
    assert reason in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(("reason", "row"), list(BAD_PAIRS.items()))
def test_bad_pairs(reason: str, row: Any) -> None:
    with pytest.raises(RowError) as caught:
        parse_row(row, DataFormat.PROMPT_COMPLETION)
    assert reason in str(caught.value)
    assert SECRET not in str(caught.value)


def test_a_row_of_the_other_format_is_told() -> None:
    with pytest.raises(RowError, match="is written as Messages in a file of PromptCompletion"):
        parse_row({"messages": [USER, BOT]}, DataFormat.PROMPT_COMPLETION)
    with pytest.raises(RowError, match="is written as PromptCompletion in a file of Messages"):
        parse_row({"prompt": "a", "completion": "b"}, DataFormat.MESSAGES)


def test_the_format_is_seen_in_a_row() -> None:
    assert detect_format({"messages": []}) is DataFormat.MESSAGES
    assert detect_format({"prompt": ""}) is DataFormat.PROMPT_COMPLETION
    assert detect_format({"completion": ""}) is DataFormat.PROMPT_COMPLETION
    with pytest.raises(RowError, match="has messages as well as prompt"):
        detect_format({"messages": [], "prompt": ""})
    with pytest.raises(RowError, match=r"neither .* \(found 'mesages'\)"):
        detect_format({"mesages": []})
    with pytest.raises(RowError) as caught:
        detect_format({SECRET: []})
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(("reason", "tools"), list(BAD_TOOLS.items()))
def test_bad_tools(reason: str, tools: Any) -> None:
    with pytest.raises(RowError) as caught:
        parse_row({"messages": [USER, BOT], "tools": tools}, DataFormat.MESSAGES)
    assert reason in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("row", "names"),
    [({"conversations": []}, "ShareGPT"), ({"instruction": "", "output": ""}, "Alpaca")],
)
def test_formats_of_others_are_named(row: dict[str, Any], names: str) -> None:
    with pytest.raises(RowError, match=f"looks like {names} data"):
        detect_format(row)


def test_good_rows() -> None:
    turns = tuple(Message(m["role"], m["content"]) for m in (SYSTEM, USER, BOT))
    extra = parse_line(json.dumps({"messages": [SYSTEM, USER, BOT], "id": 3}).encode())
    assert parse_row(extra, DataFormat.MESSAGES) == Dialogue(turns)
    assert parse_row(
        {"prompt": [SYSTEM, USER], "completion": [BOT]}, DataFormat.PROMPT_COMPLETION
    ) == Dialogue(turns, learn_from=2)
    assert parse_row({"prompt": "", "completion": " b"}, DataFormat.PROMPT_COMPLETION) == TextPair(
        "", " b"
    )


def test_tools_and_calls_however_written() -> None:
    wrapped = {"type": "function", "function": {"name": "f", "parameters": {}}}
    bare = {"tool_calls": [{"name": "f", "arguments": {"x": 1}}, {"function": FUNCTION}]}
    row = parse_row(
        {
            "messages": [USER, {**BOT, **bare}, RESULT | {"tool_call_id": None}, RESULT_2, BOT],
            "tools": [wrapped, wrapped["function"]],
        },
        DataFormat.MESSAGES,
    )
    assert isinstance(row, Dialogue)
    assert row.tools == (wrapped, wrapped)
    call = ToolCall("f", {"x": 1})
    assert row.messages[1] == Message("assistant", SECRET, (call, call))
    assert row.messages[3] == Message("tool", "2", name="f")


def test_a_dialogue_may_end_with_a_call_and_think() -> None:
    row = parse_row({"messages": [USER, {**CALLS, "reasoning_content": "so"}]}, DataFormat.MESSAGES)
    assert isinstance(row, Dialogue)
    assert row.messages[1] == Message(
        "assistant", "", (ToolCall("f", {"x": 1}, "c"),), reasoning="so"
    )


def test_brackets_in_text_are_not_nesting() -> None:
    text = "[{" * 200 + '\\"' + "[" * 200
    assert parse_line(json.dumps({"a": text, "b": "x"}).encode()) == {"a": text, "b": "x"}
    assert parse_line(b'{"a": ' + b"[" * 99 + b"]" * 99 + b"}")


def test_equal_keys_mean_equal_teaching() -> None:
    def key(row: Any, data_format: DataFormat = DataFormat.MESSAGES) -> int:
        return row_key(parse_row(row, data_format))

    pair = DataFormat.PROMPT_COMPLETION
    plain = {"messages": [USER, BOT]}
    assert key(plain) == key({"id": 3, **plain})
    assert key(plain) != key({"messages": [SYSTEM, USER, BOT]})
    assert key(plain) != key({"messages": [USER, {**BOT, "content": "other"}]})
    assert key(plain) != key({**plain, "tools": [{"name": "f"}]})
    assert key(plain) != key({"messages": [USER, {**BOT, "reasoning_content": "so"}]})
    assert key({"messages": [USER, CALLS]}) != key(
        {"messages": [USER, {**CALLS, "tool_calls": [{"name": "f", "arguments": {"x": 2}}]}]}
    )
    assert key({"prompt": "ab", "completion": "c"}, pair) != key(
        {"prompt": "a", "completion": "bc"}, pair
    )
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert key({"prompt": "a", "completion": "b"}, pair) == key({"messages": turns})
    assert key({"prompt": "a", "completion": "b"}, pair) == key(
        {"prompt": turns[:1], "completion": turns[1:]}, pair
    )
