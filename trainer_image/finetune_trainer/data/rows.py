"""One JSON object -> a Dialogue or a TextPair, or a RowError that says what is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from finetune_contract.recipe import DataFormat
from finetune_trainer.data.faults import Kind, RowError
from finetune_trainer.data.messages import (
    Message,
    as_text,
    check_order,
    missing,
    near,
    parse_messages,
    parse_tools,
)

FIELDS = {
    DataFormat.MESSAGES: ("messages",),
    DataFormat.PROMPT_COMPLETION: ("prompt", "completion"),
}
# What other projects call their rows: named, so that the user knows what to convert.
FOREIGN = {"conversations": "ShareGPT", "instruction": "Alpaca", "chosen": "preference"}


@dataclass(frozen=True)
class Dialogue:
    """Turns; assistant turns from index `learn_from` on are learned. Tools as JSON schemas."""

    messages: tuple[Message, ...]
    learn_from: int = 0
    tools: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class TextPair:
    """A prompt and its completion as plain text."""

    prompt: str
    completion: str

    def dialogue(self) -> Dialogue:
        """Return the two turns that it becomes where the model has a chat template."""
        return Dialogue((Message("user", self.prompt), Message("assistant", self.completion)))


Row = Dialogue | TextPair


def detect_format(value: dict[str, Any]) -> DataFormat:
    """Return the format a row is written in."""
    messages = "messages" in value
    pair = "prompt" in value or "completion" in value
    if messages and pair:
        raise RowError(
            Kind.AMBIGUOUS_FORMAT,
            "has messages as well as prompt or completion; set data.train[].format",
        )
    if messages:
        return DataFormat.MESSAGES
    if pair:
        return DataFormat.PROMPT_COMPLETION
    raise _no_format(value)


def parse_row(value: dict[str, Any], data_format: DataFormat) -> Row:
    """Return the checked row."""
    fields = FIELDS[data_format]
    if not any(field in value for field in fields):
        for other, names in FIELDS.items():
            if any(name in value for name in names):
                raise RowError(
                    Kind.MIXED_FORMATS, f"is written as {other} in a file of {data_format}"
                )
    for field in fields:
        if field not in value:
            raise missing(value, field)
    tools = parse_tools(value["tools"]) if value.get("tools") is not None else ()
    if len(value) > len(fields):
        _check_tools_spelling(value)
    if data_format is DataFormat.MESSAGES:
        messages = parse_messages(value["messages"], "messages")
        check_order(messages)
        return Dialogue(messages, tools=tools)
    return _prompt_completion(value["prompt"], value["completion"], tools)


def row_key(row: Row) -> int:
    """Return 64 bits that rows have in common if they teach the same, in whichever format."""
    dialogue = row.dialogue() if isinstance(row, TextPair) else row
    text = as_text(dialogue.messages, dialogue.tools)
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")


def _prompt_completion(prompt: Any, completion: Any, tools: tuple[dict[str, Any], ...]) -> Row:
    if isinstance(prompt, str) and isinstance(completion, str):
        if not completion or completion.isspace():
            raise RowError(Kind.EMPTY_COMPLETION, "has an empty completion")
        if tools:
            raise RowError(Kind.BAD_TOOLS, "has tools, but prompt and completion are text")
        return TextPair(prompt, completion)
    if isinstance(prompt, list) and isinstance(completion, list):
        before = parse_messages(prompt, "prompt")
        after = parse_messages(completion, "completion")
        if after[0].role != "assistant":
            raise RowError(
                Kind.WRONG_ROLE_ORDER,
                f"completion begins with a {after[0].role} turn, not assistant",
            )
        check_order(before + after)
        return Dialogue(before + after, learn_from=len(before), tools=tools)
    raise RowError(
        Kind.WRONG_TYPE, "prompt and completion must both be text or both be lists of messages"
    )


def _check_tools_spelling(value: dict[str, Any]) -> None:
    """Find tools that would be left out; any other unknown field is the user's own."""
    if "tools" in value:
        return
    for key, item in value.items():
        if isinstance(item, list) and near("tools", (key,)):
            raise RowError(Kind.MISSPELT_FIELD, f"has '{key}'; is 'tools' meant?")


def _no_format(value: dict[str, Any]) -> RowError:
    reason = "has neither messages nor prompt and completion"
    for field in ("messages", "prompt", "completion"):
        found = near(field, value)
        if found is not None:
            return RowError(Kind.MISSPELT_FIELD, f"{reason} (found '{found}')")
    for field, name in FOREIGN.items():
        if field in value:
            return RowError(Kind.MISSING_FIELD, f"{reason}; it looks like {name} data: convert it")
    return RowError(Kind.MISSING_FIELD, reason)
