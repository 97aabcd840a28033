"""One line of JSONL -> a Dialogue or a TextPair, or a RowError that says what is wrong with it."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from typing import Any

from finetune_contract.recipe import DataFormat
from finetune_trainer.data.faults import RowError

ROLES = ("system", "user", "assistant")
FIELDS = {
    DataFormat.MESSAGES: ("messages",),
    DataFormat.PROMPT_COMPLETION: ("prompt", "completion"),
}


@dataclass(frozen=True)
class Message:
    """One turn."""

    role: str
    content: str


@dataclass(frozen=True)
class Dialogue:
    """Turns; assistant turns from index `learn_from` on are learned."""

    messages: tuple[Message, ...]
    learn_from: int = 0


@dataclass(frozen=True)
class TextPair:
    """A prompt and its completion as plain text."""

    prompt: str
    completion: str


Row = Dialogue | TextPair


def parse_line(line: bytes) -> dict[str, Any]:
    """Return the JSON object of a line."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RowError(f"byte {error.start + 1} is not UTF-8; save the file as UTF-8") from error
    if text.startswith("\ufeff"):
        raise RowError("begins with a byte-order mark; save the file as UTF-8 without it")
    if not text.strip():
        raise RowError("is blank; remove the line")
    try:
        value = json.loads(text.rstrip("\r\n"))
    except json.JSONDecodeError as error:
        raise RowError(f"is not JSON: {error.msg} at column {error.colno}") from error
    except RecursionError as error:
        raise RowError("is not JSON that can be read: it is nested too deeply") from error
    if not isinstance(value, dict):
        raise RowError("is not a JSON object")
    return value


def detect_format(value: dict[str, Any]) -> DataFormat:
    """Return the format a row is written in."""
    messages = "messages" in value
    pair = "prompt" in value or "completion" in value
    if messages and pair:
        raise RowError("has messages as well as prompt or completion; set data.train[].format")
    if messages:
        return DataFormat.MESSAGES
    if pair:
        return DataFormat.PROMPT_COMPLETION
    raise RowError(f"has neither messages nor prompt and completion{_near(value, 'messages')}")


def parse_row(value: dict[str, Any], data_format: DataFormat) -> Row:
    """Return the checked row."""
    fields = FIELDS[data_format]
    if not any(field in value for field in fields):
        for other, names in FIELDS.items():
            if any(name in value for name in names):
                raise RowError(f"is written as {other} in a file of {data_format}")
    for field in fields:
        if field not in value:
            raise RowError(f"has no '{field}'{_near(value, field)}")
    if data_format is DataFormat.MESSAGES:
        messages = _messages(value["messages"], "messages")
        _check_order(messages)
        return Dialogue(messages)
    return _prompt_completion(value["prompt"], value["completion"])


def _prompt_completion(prompt: Any, completion: Any) -> Row:
    if isinstance(prompt, str) and isinstance(completion, str):
        if not completion.strip():
            raise RowError("has an empty completion")
        return TextPair(prompt, completion)
    if isinstance(prompt, list) and isinstance(completion, list):
        before, after = _messages(prompt, "prompt"), _messages(completion, "completion")
        _check_order(before + after)
        if after[0].role != "assistant":
            raise RowError(f"completion begins with a {after[0].role} turn, not assistant")
        return Dialogue(before + after, learn_from=len(before))
    raise RowError("prompt and completion must both be text or both be lists of messages")


def _messages(value: Any, field: str) -> tuple[Message, ...]:
    if not isinstance(value, list):
        raise RowError(f"'{field}' is not a list")
    if not value:
        raise RowError(f"'{field}' is empty")
    return tuple(_message(item, f"{field}[{index}]") for index, item in enumerate(value))


def _message(value: Any, where: str) -> Message:
    if not isinstance(value, dict):
        raise RowError(f"{where} is not an object")
    for field in ("role", "content"):
        if field not in value:
            raise RowError(f"{where} has no '{field}'{_near(value, field)}")
    role, content = value["role"], value["content"]
    if role not in ROLES:
        raise RowError(f"{where}.role is none of {', '.join(ROLES)}")
    if not isinstance(content, str):
        raise RowError(f"{where}.content is not text")
    if role == "assistant" and not content.strip():
        raise RowError(f"{where} is an assistant turn with empty content")
    return Message(role, content)


def _check_order(messages: tuple[Message, ...]) -> None:
    roles = [message.role for message in messages]
    if "assistant" not in roles:
        raise RowError("has no assistant turn to learn from")
    turns = roles[1:] if roles[0] == "system" else roles
    if "system" in turns:
        raise RowError("has a system turn that is not the first")
    for index, role in enumerate(turns):
        expected = ("user", "assistant")[index % 2]
        if role != expected:
            position = index + len(roles) - len(turns)
            raise RowError(
                f"turn {position + 1} is {role} where {expected} was expected: user and assistant "
                "take turns, the user begins"
            )
    if turns[-1] != "assistant":
        raise RowError("ends with a user turn; nothing is learned from it")


def _near(value: dict[str, Any], field: str) -> str:
    """Name a misspelt field. Only near misses: any other key could be the user's data."""
    close = difflib.get_close_matches(field, [str(key) for key in value], n=1)
    return f" (found '{close[0]}')" if close else ""
