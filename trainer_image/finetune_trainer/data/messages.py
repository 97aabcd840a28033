"""The turns of a dialogue, and the text by which equal dialogues are known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple


@dataclass(frozen=True)
class ToolCall:
    """A function that the assistant calls, with its arguments by name."""

    name: str
    arguments: dict[str, Any]
    id: str | None = None


class Message(NamedTuple):
    """One turn. `reasoning` and `tool_calls` are the assistant's, `call_id` a tool's.

    An assistant's turn that is not `learned` is context.
    """

    role: str
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning: str | None = None
    name: str | None = None
    call_id: str | None = None
    learned: bool = True


def as_text(messages: Sequence[Message], tools: Sequence[dict[str, Any]]) -> str:
    """Return one text for a dialogue, equal for equal dialogues: NUL is in no text of a row."""
    parts = [part for message in messages for part in (message.role, message.content)]
    extra = [
        [m.reasoning, [[call.name, call.arguments] for call in m.tool_calls], m.learned]
        for m in messages
        if m.tool_calls or m.reasoning or not m.learned
    ]
    if extra or tools:
        parts += ["", json.dumps([extra, list(tools)], sort_keys=True)]
    return "\0".join(parts)
