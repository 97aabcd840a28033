"""Every fault of a row is told by name, and no fault tells the row."""

from __future__ import annotations

import json
from typing import Any

import pytest

from finetune_contract.recipe import DataFormat
from finetune_trainer.data.faults import RowError
from finetune_trainer.data.rows import (
    Dialogue,
    Message,
    TextPair,
    detect_format,
    parse_line,
    parse_row,
)

SECRET = "canary-7f3a"
USER = {"role": "user", "content": SECRET}
BOT = {"role": "assistant", "content": SECRET}
SYSTEM = {"role": "system", "content": SECRET}

BAD_LINES = {
    b'{"messages": [': "is not JSON: Expecting value at column",
    b'"canary-7f3a"': "is not a JSON object",
    b"   ": "is blank",
    b'{"a": "\xff"}': "byte 8 is not UTF-8",
    b'\xef\xbb\xbf{"a": 1}': "byte-order mark",
    b"[" * 100_000: "nested too deeply",
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
    "messages[0].role is none of system, user, assistant": [{"role": SECRET, "content": "x"}],
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
}

BAD_PAIRS: dict[str, Any] = {
    "has no 'completion' (found 'completions')": {"prompt": SECRET, "completions": SECRET},
    "has no 'prompt'": {"completion": SECRET},
    "has an empty completion": {"prompt": SECRET, "completion": "  "},
    "must both be text or both be lists": {"prompt": SECRET, "completion": [BOT]},
    "'completion' is empty": {"prompt": [USER], "completion": []},
    "completion begins with a user turn": {"prompt": [USER, BOT], "completion": [USER, BOT]},
    "prompt[0].content is not text": {"prompt": [{"role": "user", "content": 1}], "completion": []},
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
