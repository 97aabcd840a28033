"""Lists of messages and tools -> checked turns.

The fields are those of OpenAI's chat format: role, content, tool_calls, tool_call_id, name, and
reasoning_content as templates of reasoning models read it. Other fields are the user's own, unless
one looks like a misspelling of these.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from finetune_trainer.data.faults import Kind, RowError
from finetune_trainer.data.lines import STRICT_JSON

ROLES = ("system", "user", "assistant", "tool")
PLAIN_ROLES = ROLES[:3]
MESSAGE_FIELDS = ("role", "content", "tool_calls", "tool_call_id", "name", "reasoning_content")


@dataclass(frozen=True)
class ToolCall:
    """A function that the assistant calls, with its arguments by name."""

    name: str
    arguments: dict[str, Any]
    id: str | None = None


class Message(NamedTuple):
    """One turn. `reasoning` and `tool_calls` are the assistant's, `call_id` a tool's."""

    role: str
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning: str | None = None
    name: str | None = None
    call_id: str | None = None


def near(field: str, names: Iterable[Any]) -> str | None:
    """Return the name that looks like a misspelling of a field."""
    return _near(field, tuple(str(name) for name in names))


def missing(value: Mapping[str, Any], field: str, where: str = "") -> RowError:
    """Return the error of a field that is not there, or is there under a misspelt name."""
    subject = f"{where} has" if where else "has"
    found = near(field, value)
    if found is None:
        return RowError(Kind.MISSING_FIELD, f"{subject} no '{field}'")
    return RowError(Kind.MISSPELT_FIELD, f"{subject} no '{field}' (found '{found}')")


def parse_messages(value: Any, field: str) -> tuple[Message, ...]:
    """Return the turns of a list of messages, each checked by itself."""
    if not isinstance(value, list):
        raise RowError(Kind.WRONG_TYPE, f"'{field}' is not a list")
    if not value:
        raise RowError(Kind.EMPTY_MESSAGES, f"'{field}' is empty")
    return tuple(
        _plain_message(item) or _message(item, f"{field}[{index}]")
        for index, item in enumerate(value)
    )


def parse_tools(value: Any) -> tuple[dict[str, Any], ...]:
    """Return the tools as `{"type": "function", "function": {...}}`, whichever way given."""
    if not isinstance(value, list):
        raise RowError(Kind.BAD_TOOLS, "'tools' is not a list")
    return tuple(_tool(item, f"tools[{index}]") for index, item in enumerate(value))


def check_order(messages: Sequence[Message]) -> None:
    """Raise RowError unless the turns make a dialogue that ends with the assistant.

    After an optional system turn: user, assistant, user, assistant, ...; an assistant that calls
    tools is followed by one tool turn per call and then by the assistant again.
    """
    roles = tuple(message.role for message in messages)
    turns = roles[roles[0] == "system" :]
    calls = any(message.tool_calls for message in messages)
    if turns and turns == ("user", "assistant") * (len(turns) // 2) and not calls:
        return
    if "assistant" not in roles:
        raise RowError(Kind.NO_ASSISTANT_TURN, "has no assistant turn to learn from")
    if "system" in roles[1:]:
        raise RowError(Kind.SYSTEM_NOT_FIRST, "has a system turn that is not the first")
    expected, open_calls = "user", 0
    for index, message in enumerate(messages):
        if message.role == "system":
            continue
        if message.role == "tool" and expected != "tool":
            raise RowError(
                Kind.RESULT_WITHOUT_CALL, f"turn {index + 1} is a tool's, but no call is open"
            )
        if message.role != expected:
            raise _out_of_order(index, message.role, expected)
        if message.role == "tool":
            open_calls -= 1
        else:
            open_calls = len(message.tool_calls)
        expected = _after(message.role, open_calls)
    if messages[-1].role != "assistant":
        raise RowError(
            Kind.LAST_TURN_NOT_ASSISTANT,
            f"ends with a {messages[-1].role} turn; nothing is learned from it",
        )
    _check_call_ids(messages)


def _after(role: str, open_calls: int) -> str:
    if open_calls:
        return "tool"
    return "user" if role == "assistant" else "assistant"


def _out_of_order(index: int, role: str, expected: str) -> RowError:
    turn = f"turn {index + 1} is {role} where {expected} was expected"
    if expected == "tool":
        return RowError(Kind.CALL_WITHOUT_RESULT, f"{turn}: each tool call needs its result")
    return RowError(
        Kind.WRONG_ROLE_ORDER, f"{turn}: user and assistant take turns, the user begins"
    )


def _check_call_ids(messages: Sequence[Message]) -> None:
    known: set[str | None] = {None}
    for index, message in enumerate(messages):
        known.update(call.id for call in message.tool_calls)
        if message.call_id not in known:
            raise RowError(
                Kind.RESULT_WITHOUT_CALL, f"turn {index + 1} has the tool_call_id of no call"
            )


def _plain_message(value: Any) -> Message | None:
    """Return the turn if it is text and nothing more, as most are; it need not be looked at twice.

    None otherwise, be it good or bad.
    """
    if not isinstance(value, dict) or len(value) != 2:
        return None
    role, content = value.get("role"), value.get("content")
    if role in PLAIN_ROLES and isinstance(content, str) and content and not content.isspace():
        return Message(role, content)
    return None


def _message(value: Any, where: str) -> Message:
    if not isinstance(value, dict):
        raise RowError(Kind.WRONG_TYPE, f"{where} is not an object")
    if "role" not in value:
        raise missing(value, "role", where)
    role = value["role"]
    if role not in ROLES:
        raise RowError(Kind.UNKNOWN_ROLE, f"{where}.role is none of {', '.join(ROLES)}")
    calls = value.get("tool_calls")
    if len(value) > 2:
        _check_spelling(value, where)
    tool_calls = _tool_calls(calls, role, where) if calls else ()
    content = value.get("content")
    if content is None and not tool_calls:
        if "content" not in value:
            raise missing(value, "content", where)
        raise RowError(Kind.NON_TEXT_CONTENT, f"{where}.content is null")
    content = "" if content is None else content
    if not isinstance(content, str):
        raise RowError(Kind.NON_TEXT_CONTENT, f"{where}.content is not text")
    if role == "assistant" and not tool_calls and (not content or content.isspace()):
        raise RowError(Kind.EMPTY_COMPLETION, f"{where} is an assistant turn with empty content")
    if len(value) == 2:
        return Message(role, content)
    return Message(
        role,
        content,
        tool_calls,
        _optional(value, "reasoning_content", where),
        _optional(value, "name", where),
        _optional(value, "tool_call_id", where),
    )


def _check_spelling(value: dict[str, Any], where: str) -> None:
    for key in value:
        if key not in MESSAGE_FIELDS:
            for field in MESSAGE_FIELDS:
                if field not in value and near(field, (key,)):
                    raise RowError(Kind.MISSPELT_FIELD, f"{where} has '{key}'; is '{field}' meant?")


def _optional(value: dict[str, Any], field: str, where: str) -> str | None:
    text = value.get(field)
    if text is not None and not isinstance(text, str):
        raise RowError(Kind.WRONG_TYPE, f"{where}.{field} is not text")
    return text


def _tool_calls(value: Any, role: str, where: str) -> tuple[ToolCall, ...]:
    if role != "assistant":
        raise RowError(Kind.BAD_TOOL_CALL, f"{where} is a {role} turn with tool_calls")
    if not isinstance(value, list):
        raise RowError(Kind.BAD_TOOL_CALL, f"{where}.tool_calls is not a list")
    return tuple(_tool_call(item, f"{where}.tool_calls[{i}]") for i, item in enumerate(value))


def _tool_call(value: Any, where: str) -> ToolCall:
    function = value.get("function", value) if isinstance(value, dict) else None
    if not isinstance(function, dict):
        raise RowError(Kind.BAD_TOOL_CALL, f"{where} is not an object with a function")
    name, arguments = function.get("name"), function.get("arguments")
    if not isinstance(name, str) or not name:
        raise RowError(Kind.BAD_TOOL_CALL, f"{where} has no function name")
    if isinstance(arguments, str):
        try:
            arguments = STRICT_JSON.decode(arguments)
        except (ValueError, RecursionError) as error:
            raise RowError(Kind.BAD_TOOL_CALL, f"{where}.arguments is not JSON") from error
    if not isinstance(arguments, dict):
        raise RowError(Kind.BAD_TOOL_CALL, f"{where} has no arguments; give an object, may be {{}}")
    return ToolCall(name, arguments, _optional(value, "id", where))


def _tool(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RowError(Kind.BAD_TOOLS, f"{where} is not an object")
    function = value.get("function", value)
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise RowError(Kind.BAD_TOOLS, f"{where} has no function name")
    if not isinstance(function.get("parameters", {}), dict):
        raise RowError(Kind.BAD_TOOLS, f"{where}.parameters is not a JSON schema")
    return value if "function" in value else {"type": "function", "function": value}


@lru_cache(maxsize=4096)  # rows of a file share their keys
def _near(field: str, names: tuple[str, ...]) -> str | None:
    lowered = {name.lower().replace("-", "_"): name for name in names}
    close = difflib.get_close_matches(field, lowered, n=1, cutoff=0.75)
    return lowered[close[0]] if close else None


def as_text(messages: Sequence[Message], tools: Sequence[dict[str, Any]]) -> str:
    """Return one text for a dialogue, equal for equal dialogues: NUL is in no text of a row."""
    parts = [part for message in messages for part in (message.role, message.content)]
    extra = [
        [m.reasoning, [[call.name, call.arguments] for call in m.tool_calls]]
        for m in messages
        if m.tool_calls or m.reasoning
    ]
    if extra or tools:
        parts += ["", json.dumps([extra, list(tools)], sort_keys=True)]
    return "\0".join(parts)
