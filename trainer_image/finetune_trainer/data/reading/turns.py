"""A list of messages -> turns, each checked by itself. Keys that are null are absent.

The order of turns, and roles that are not known here, are the chat template's to take or to refuse.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from finetune_trainer.data.faults import Kind, RowError
from finetune_trainer.data.messages import Message, ToolCall
from finetune_trainer.data.reading.contents import said
from finetune_trainer.data.reading.fields import TURN_FIELDS, Meaning, is_learned, refuse
from finetune_trainer.data.reading.names import missing, near
from finetune_trainer.data.reading.tools import parse_call, parse_calls

ROLE_KEYS, CONTENT_KEYS = ("role", "from"), ("content", "value")
MESSAGE_FIELDS = ("role", "content", "tool_calls", "tool_call_id", "name", "reasoning_content")
PLAIN_ROLES = ("user", "assistant", "system")
ROLES = (*PLAIN_ROLES, "tool", "developer")
CALL = "call"  # a turn of ShareGPT that is nothing but a call
OTHER_NAMES = {
    "human": "user",
    "prompter": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "chatbot": "assistant",
    "ai": "assistant",
    "observation": "tool",
    "function": "tool",
    "function_response": "tool",
    "tool_response": "tool",
    "ipython": "tool",
    "function_call": CALL,
    "tool_call": CALL,
}
_REASONING = [name for name, field in TURN_FIELDS.items() if field.meaning is Meaning.REASONING]
_REFUSED = [name for name, field in TURN_FIELDS.items() if field.meaning is Meaning.REFUSED]


def parse_messages(
    value: Any, field: str, ignored: set[str], columns: Mapping[str, str] | None = None
) -> tuple[Message, ...]:
    """Return the turns of a list of messages; `ignored` is given the keys that mean nothing here.

    `columns` names the keys of a turn that hold its `role` and its `content`.
    """
    if not isinstance(value, list):
        raise RowError(Kind.WRONG_TYPE, f"'{field}' is not a list")
    if not value:
        raise RowError(Kind.EMPTY_MESSAGES, f"'{field}' is empty")
    keys = (columns or {}).get("role"), (columns or {}).get("content")
    turns: list[Message] = []
    for index, item in enumerate(value):
        plain = _plain_message(item)
        if plain is not None:
            turns.append(plain)
        else:
            for given in _exchanged(item):
                _add(turns, _Turn(given, f"{field}[{index}]", keys).message(ignored))
    return tuple(turns)


def check_dialogue(messages: Sequence[Message]) -> None:
    """Raise RowError for a result of a call that nobody made."""
    known = {call.id for message in messages for call in message.tool_calls}
    if not known:  # calls may be written as text
        return
    for index, message in enumerate(messages):
        if message.call_id is not None and message.call_id not in known:
            raise RowError(
                Kind.RESULT_WITHOUT_CALL, f"turn {index + 1} has the tool_call_id of no call"
            )


def check_learned(messages: Sequence[Message]) -> None:
    """Raise RowError unless a turn is to be learned."""
    if not any(message.role == "assistant" for message in messages):
        raise RowError(Kind.NO_ASSISTANT_TURN, "has no assistant turn to learn from")
    if not any(message.role == "assistant" and message.learned for message in messages):
        raise RowError(Kind.NO_ASSISTANT_TURN, "has no assistant turn that is to be learned")


def role_of(text: str) -> str:
    """Return a role by the name that templates know; one that nobody knows as it is."""
    lowered = text.lower()
    return lowered if lowered in ROLES else OTHER_NAMES.get(lowered, text)


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


def _exchanged(item: Any) -> Iterator[Any]:
    """Yield the two turns of ms-swift's {"human", "assistant"}; anything else as it is."""
    if isinstance(item, dict) and {*item} == {"human", "assistant"}:
        yield {"role": "user", "content": item["human"]}
        yield {"role": "assistant", "content": item["assistant"]}
    else:
        yield item


def _add(turns: list[Message], message: Message) -> None:
    """Append a turn; one that is nothing but a call belongs to the assistant's before it."""
    if message.role != CALL:
        turns.append(message)
        return
    message = message._replace(role="assistant")
    before = turns[-1] if turns else None
    if before and before.role == "assistant" and before.learned == message.learned:
        turns[-1] = before._replace(tool_calls=before.tool_calls + message.tool_calls)
    else:
        turns.append(message)


class _Turn:
    """One message that is not plain."""

    def __init__(self, value: Any, where: str, keys: tuple[str | None, str | None]) -> None:
        if not isinstance(value, dict):
            raise RowError(Kind.WRONG_TYPE, f"{where} is not an object")
        self._value = {key: item for key, item in value.items() if item is not None}
        self._nulls = value.keys() - self._value.keys()
        self._where = where
        self._role_key = self._key(ROLE_KEYS, keys[0])
        self._content_key = self._key(CONTENT_KEYS, keys[1])

    def message(self, ignored: set[str]) -> Message:
        """Return the turn; `ignored` is given the keys that mean nothing here."""
        value, where = self._value, self._where
        role = self._role()
        for name in _REFUSED:
            if name in value:
                refuse(TURN_FIELDS[name], value[name], f"{where}.")
        content, thought = self._content()
        self._count(ignored)
        if role == CALL:
            calls = self._written_calls(content)
            return Message(CALL, "", calls, learned=self._learned("assistant"))
        calls = self._calls(role)
        learned = self._learned(role)
        empty = role == "assistant" and not calls and (not content or content.isspace())
        if empty and learned:
            raise RowError(
                Kind.EMPTY_COMPLETION, f"{where} is an assistant turn with empty content"
            )
        return Message(
            role,
            content,
            calls,
            self._reasoning(role, thought),
            self._text("name"),
            self._text("tool_call_id"),
            learned,
        )

    def _key(self, names: tuple[str, ...], mapped: str | None) -> str:
        """Return the key that holds a turn's role, or its content."""
        if mapped is not None:
            return mapped
        return next((name for name in names if name in self._value), names[0])

    def _role(self) -> str:
        if self._role_key not in self._value:
            raise missing(self._value, self._role_key, self._where)
        role = self._value[self._role_key]
        if not isinstance(role, str) or not role.strip():
            raise RowError(Kind.UNKNOWN_ROLE, f"{self._where}.{self._role_key} is not a role")
        known = role_of(role)
        if known not in (*ROLES, CALL):
            for name in ROLES:
                if near(name, (role,)):
                    raise RowError(
                        Kind.UNKNOWN_ROLE,
                        f"{self._where}.{self._role_key} is unknown; is '{name}' meant?",
                    )
        return known

    def _content(self) -> tuple[str, str | None]:
        key, where = self._content_key, self._where
        if key in self._value:
            return said(self._value[key], f"{where}.{key}")
        if "tool_calls" in self._value or "function_call" in self._value:
            return "", None
        if key in self._nulls or self._role_key not in self._value:
            raise RowError(Kind.NON_TEXT_CONTENT, f"{where}.{key} is null")
        raise missing(self._value, key, where)

    def _calls(self, role: str) -> tuple[ToolCall, ...]:
        value, where = self._value, self._where
        calls = parse_calls(value.get("tool_calls"), f"{where}.tool_calls")
        if "function_call" in value and value["function_call"] not in ("", {}):
            if calls:
                raise RowError(
                    Kind.BAD_TOOL_CALL, f"{where} has tool_calls as well as function_call"
                )
            calls = (parse_call(value["function_call"], f"{where}.function_call"),)
        if calls and role != "assistant":
            raise RowError(Kind.BAD_TOOL_CALL, f"{where} is a {role} turn with tool_calls")
        return calls

    def _written_calls(self, content: str) -> tuple[ToolCall, ...]:
        """Return the calls that are a ShareGPT turn's text: JSON of one, or of a list."""
        where = f"{self._where}.{self._content_key}"
        text = content.strip()
        calls = parse_calls(text if text.startswith("[") else f"[{text}]", where) if text else ()
        if not calls:
            raise RowError(Kind.BAD_TOOL_CALL, f"{where} holds no call")
        return calls

    def _learned(self, role: str) -> bool:
        learned = is_learned(TURN_FIELDS, self._value, f"{self._where}.")
        if learned and role != "assistant":
            raise RowError(
                Kind.FOREIGN_FIELD,
                f"{self._where} is a {role} turn that is to be learned; only assistant turns are",
            )
        return learned is not False

    def _reasoning(self, role: str, thought: str | None) -> str | None:
        """Return the reasoning, under whichever names it is written."""
        found = {
            said(self._value[name], f"{self._where}.{name}")[0]
            for name in _REASONING
            if name in self._value
        } | {thought or ""}
        found.discard("")
        if len(found) > 1:
            raise RowError(
                Kind.FOREIGN_FIELD, f"{self._where} has two different texts as its reasoning"
            )
        if found and role != "assistant":
            raise RowError(Kind.FOREIGN_FIELD, f"{self._where} is a {role} turn with reasoning")
        return next(iter(found), None)

    def _text(self, field: str) -> str | None:
        text = self._value.get(field)
        if text is not None and not isinstance(text, str):
            raise RowError(Kind.WRONG_TYPE, f"{self._where}.{field} is not text")
        return text

    def _count(self, ignored: set[str]) -> None:
        """Note the keys that mean nothing here; raise RowError for one that is misspelt."""
        for key in self._value:
            if key in MESSAGE_FIELDS or key in TURN_FIELDS:
                continue
            if key in (self._role_key, self._content_key):
                continue
            for field in MESSAGE_FIELDS:
                if field not in self._value and near(field, (key,)):
                    raise RowError(
                        Kind.MISSPELT_FIELD, f"{self._where} has '{key}'; is '{field}' meant?"
                    )
            ignored.add(f"messages[].{key}")
