"""A row of GRPO's train data: a prompt, and columns for the rewards.

The prompt is `prompt`, text or messages, or `messages`; an assistant's turn is to follow it. Text
becomes one user turn where the model has a chat template. Every other column is the rewards': its
values reach them as they stand in the row, and a row may lack a column that no builtin reward
reads.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from finetune_contract.reasons import Reason
from finetune_contract.recipe import DataFormat
from finetune_contract.rewards import Reward
from finetune_rewards.scores.columns import required_column
from finetune_trainer.data.faults import Kind, RowError
from finetune_trainer.data.messages import Message
from finetune_trainer.data.reading.fields import ROW_FIELDS
from finetune_trainer.data.reading.layouts import BESIDE, unmapped
from finetune_trainer.data.reading.names import missing
from finetune_trainer.data.reading.tools import parse_tools
from finetune_trainer.data.reading.turns import check_dialogue, parse_messages
from finetune_trainer.data.rows import Dialogue
from finetune_trainer.process.errors import Failure

PROMPT_FIELDS = ("prompt", "messages")
MAPPED = (*PROMPT_FIELDS, "role", "content", "tools")  # of data.columns
# What belongs to a prompt, wherever it comes from, and would be left out of it.
_BESIDE = {
    **dict.fromkeys(BESIDE["system"], "write it as the first turn of the prompt"),
    "functions": "set data.columns.tools: functions",
    **{
        name: ROW_FIELDS[name].remedy
        for name in (
            *("image", "images", "videos", "audio", "audios"),
            *("chat_template", "chat_template_kwargs"),
        )
    },
}
VERSION = 1  # to be raised whenever the same row would encode to other tokens or another document


@dataclass(frozen=True)
class Prompt(Dialogue):
    """Turns that an assistant's is to follow, or `text`, and what the rewards are given."""

    text: str | None = None
    document: str = ""  # JSON: {"prompt": text or messages, "columns": {...}}


def columns_needed(rewards: Iterable[Reward]) -> dict[str, str]:
    """Return the columns that builtin rewards read, each with the name of a reward that does."""
    needed: dict[str, str] = {}
    for reward in rewards:
        column = required_column(reward)
        if column is not None:
            needed.setdefault(column, reward.name)
    return needed


def prompt_reader(
    data_format: DataFormat, needed: Mapping[str, str], columns: Mapping[str, str] | None = None
) -> Callable[[dict[str, Any]], Prompt]:
    """Return what reads the rows of one file.

    They must have the columns that are needed, each given with the name of the reward that reads
    it. `columns` names the columns that are prompt, messages or tools. Raises Failure for a format
    that is none of prompts.
    """
    if data_format is not DataFormat.AUTO:
        raise Failure(
            Reason.DATA_INVALID, f"data.train[].format {data_format} is not for GRPO; remove it"
        )

    mapped = columns or {}
    for ours in mapped:
        if ours not in MAPPED:
            raise Failure(
                Reason.DATA_INVALID,
                f"data.columns.{ours} is not for GRPO, whose prompts are {', '.join(MAPPED)}; "
                "remove it",
            )

    def read(value: dict[str, Any]) -> Prompt:
        prompt = parse_prompt(_renamed(value, mapped), mapped)
        for column, reward in needed.items():
            if column not in value or column in PROMPT_FIELDS:
                raise RowError(
                    Kind.MISSING_COLUMN, f"has no '{column}', which reward {reward} reads"
                )
        return prompt

    return read


def _renamed(value: dict[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """Return a row whose prompt has our names."""
    there = {ours: columns[ours] for ours in (*PROMPT_FIELDS, "tools") if ours in columns}
    for ours, column in there.items():
        if column not in value:
            raise unmapped(ours, column, tuple(value))
        if ours in value and ours != column:
            raise RowError(
                Kind.AMBIGUOUS_FORMAT, f"has '{ours}' beside '{column}', which is the {ours}"
            )
    kept = {name: item for name, item in value.items() if name not in there.values()}
    return kept | {ours: value[column] for ours, column in there.items()}


def parse_prompt(value: dict[str, Any], mapped: Mapping[str, str] | None = None) -> Prompt:
    """Return the checked prompt of a row."""
    there = [field for field in PROMPT_FIELDS if value.get(field) is not None]
    if len(there) > 1:
        raise RowError(Kind.AMBIGUOUS_FORMAT, "has prompt as well as messages; remove one")
    if not there:
        raise _no_prompt(value)
    [field] = there
    given = value[field]
    tools = parse_tools(value["tools"]) if value.get("tools") is not None else ()
    columns = {name: item for name, item in value.items() if name not in PROMPT_FIELDS}
    for name, remedy in _BESIDE.items():
        if columns.get(name) not in (None, "", [], {}):
            raise RowError(
                Kind.FOREIGN_FIELD,
                f"has '{name}', which would be left out of the prompt: {remedy}, or give the "
                "column another name if it is the rewards' alone",
            )
    document = json.dumps({"prompt": given, "columns": columns}, separators=(",", ":"))
    if field == "prompt" and isinstance(given, str):
        if not given or given.isspace():
            raise RowError(Kind.EMPTY_PROMPT, "has an empty prompt")
        return Prompt((Message("user", given),), tools=tools, text=given, document=document)
    if field == "prompt" and not isinstance(given, list):
        raise RowError(Kind.WRONG_TYPE, "'prompt' is neither text nor a list of messages")
    ignored: set[str] = set()
    messages = parse_messages(given, field, ignored, mapped)
    _check_turns(messages)
    return Prompt(messages, 0, tools, tuple(sorted(ignored)), document=document)


def _check_turns(messages: tuple[Message, ...]) -> None:
    """Raise RowError unless the turns and an answer to them make a dialogue."""
    last = messages[-1]
    if last.role == "assistant" and not last.tool_calls:
        raise RowError(
            Kind.LAST_TURN_NOT_USER,
            "ends with an assistant turn; a prompt ends with what the assistant answers",
        )
    check_dialogue(messages)


def _no_prompt(value: dict[str, Any]) -> RowError:
    errors = [missing(value, field) for field in PROMPT_FIELDS]
    misspelt = [error for error in errors if error.kind is Kind.MISSPELT_FIELD]
    return (
        misspelt[0]
        if misspelt
        else RowError(Kind.MISSING_FIELD, "has neither 'prompt' nor 'messages'")
    )
