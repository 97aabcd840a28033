"""A dialogue, or a pair of texts -> the JSON object that is read as the same again."""

from __future__ import annotations

import json
from typing import Any

from finetune_trainer.data.messages import Message
from finetune_trainer.data.rows import Row, TextPair


def written(row: Row) -> dict[str, Any]:
    """Return a row of messages, or of prompt and completion; a turn that is context says so."""
    if isinstance(row, TextPair):
        return {"prompt": row.prompt, "completion": row.completion}
    messages = [
        _message(turn, context=turn.role == "assistant" and not row.learns(index))
        for index, turn in enumerate(row.messages)
    ]
    return {"messages": messages} | ({"tools": list(row.tools)} if row.tools else {})


def _message(turn: Message, *, context: bool) -> dict[str, Any]:
    calls = [
        {
            **({} if call.id is None else {"id": call.id}),
            "type": "function",
            "function": {
                "name": call.name,
                "arguments": json.dumps(call.arguments, ensure_ascii=False),
            },
        }
        for call in turn.tool_calls
    ]
    fields = {
        "role": turn.role,
        "content": turn.content,
        "tool_calls": calls or None,
        "reasoning_content": turn.reasoning,
        "name": turn.name,
        "tool_call_id": turn.call_id,
        "train": False if context else None,
    }
    return {name: value for name, value in fields.items() if value is not None}
