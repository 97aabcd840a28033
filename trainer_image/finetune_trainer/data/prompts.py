"""A row of GRPO's train data: a prompt, and columns for the rewards.

The prompt is `prompt`, text or messages, or `messages`; an assistant's turn is to follow it. Text
becomes one user turn where the model has a chat template. Every other column is the rewards': its
values reach them as they stand in the row, and a row may lack a column that no builtin reward
reads.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from finetune_contract.reasons import Reason
from finetune_contract.recipe import DataFormat
from finetune_contract.rewards import Reward
from finetune_rewards.columns import required_column
from finetune_trainer.data.check import Reader
from finetune_trainer.data.encode import EncodedRow
from finetune_trainer.data.faults import Kind, RowError
from finetune_trainer.data.messages import (
    Message,
    check_order,
    missing,
    parse_messages,
    parse_tools,
)
from finetune_trainer.data.rows import Dialogue, Row
from finetune_trainer.data.template import ChatTemplate, Tokenizer
from finetune_trainer.errors import Failure

PROMPT_FIELDS = ("prompt", "messages")
VERSION = 1  # to be raised whenever the same row would encode to other tokens or another document


@dataclass(frozen=True)
class Prompt(Dialogue):
    """Turns that an assistant's is to follow, or `text`, and what the rewards are given."""

    text: str | None = None
    document: str = ""  # JSON: {"prompt": text or messages, "columns": {...}}


@dataclass(frozen=True)
class EncodedPrompt(EncodedRow):
    """No token of a prompt is learned; `document` is its row's."""

    document: bytes = b""


def columns_needed(rewards: Iterable[Reward]) -> dict[str, str]:
    """Return the columns that builtin rewards read, each with the name of a reward that does."""
    needed: dict[str, str] = {}
    for reward in rewards:
        column = required_column(reward)
        if column is not None:
            needed.setdefault(column, reward.name)
    return needed


def prompt_reader(needed: dict[str, str]) -> Reader:
    """Return what reads rows that must have these columns, each given with its reward's name."""

    def read(value: dict[str, Any]) -> Row:
        prompt = parse_prompt(value)
        for column, reward in needed.items():
            if value.get(column) is None or column in PROMPT_FIELDS:
                raise RowError(
                    Kind.MISSING_COLUMN, f"has no '{column}', which reward {reward} reads"
                )
        return prompt

    return read


def check_format(data_format: DataFormat) -> None:
    """Raise Failure for a format that is none of prompts."""
    if data_format is not DataFormat.AUTO:
        raise Failure(
            Reason.DATA_INVALID, f"data.train[].format {data_format} is not for GRPO; remove it"
        )


def parse_prompt(value: dict[str, Any]) -> Prompt:
    """Return the checked prompt of a row."""
    there = [field for field in PROMPT_FIELDS if field in value]
    if len(there) > 1:
        raise RowError(Kind.AMBIGUOUS_FORMAT, "has prompt as well as messages; remove one")
    if not there:
        raise _no_prompt(value)
    [field] = there
    given = value[field]
    tools = parse_tools(value["tools"]) if value.get("tools") is not None else ()
    columns = {name: item for name, item in value.items() if name not in PROMPT_FIELDS}
    document = json.dumps({"prompt": given, "columns": columns}, separators=(",", ":"))
    if field == "prompt" and isinstance(given, str):
        if not given or given.isspace():
            raise RowError(Kind.EMPTY_PROMPT, "has an empty prompt")
        return Prompt((Message("user", given),), tools=tools, text=given, document=document)
    if field == "prompt" and not isinstance(given, list):
        raise RowError(Kind.WRONG_TYPE, "'prompt' is neither text nor a list of messages")
    messages = parse_messages(given, field)
    _check_turns(messages)
    return Prompt(messages, tools=tools, document=document)


def _check_turns(messages: tuple[Message, ...]) -> None:
    """Raise RowError unless the turns and an answer to them make a dialogue."""
    last = messages[-1]
    if last.role == "assistant" and not last.tool_calls:
        raise RowError(
            Kind.LAST_TURN_NOT_USER,
            "ends with an assistant turn; a prompt ends with what the assistant answers",
        )
    check_order((*messages, Message("assistant", "an answer")))


def _no_prompt(value: dict[str, Any]) -> RowError:
    errors = [missing(value, field) for field in PROMPT_FIELDS]
    misspelt = [error for error in errors if error.kind is Kind.MISSPELT_FIELD]
    return (
        misspelt[0]
        if misspelt
        else RowError(Kind.MISSING_FIELD, "has neither 'prompt' nor 'messages'")
    )


class PromptEncoder:
    """Encodes prompts for one tokenizer and refuses those of more than `longest` tokens."""

    def __init__(self, tokenizer: Tokenizer, longest: int) -> None:
        self._tokenizer = tokenizer
        self._longest = longest
        added = [str(t) for t in tokenizer.added_tokens_decoder.values() if t.special]
        self._template = None if tokenizer.chat_template is None else ChatTemplate(tokenizer, added)

    def encode(self, row: Row) -> EncodedPrompt:
        """Return the tokens after which an answer is to be drawn; raise RowError for a fault."""
        assert isinstance(row, Prompt), "read by prompt_reader"
        ids = self._ids(row)
        if len(ids) > self._longest:
            raise RowError(
                Kind.PROMPT_TOO_LONG,
                f"has a prompt of {len(ids)} tokens, more than the {self._longest} that "
                "training.sequenceLength - rollout.maxTokens leaves",
            )
        tokens = np.array(ids, dtype=np.int32)
        return EncodedPrompt(
            tokens, np.zeros(len(ids), dtype=np.bool_), document=row.document.encode()
        )

    def _ids(self, prompt: Prompt) -> list[int]:
        if self._template is not None:
            return self._tokenize(self._template.prompt(prompt), add_special_tokens=False)
        if prompt.text is None:
            raise Failure(
                Reason.MODEL_UNSUPPORTED,
                "the base model has no chat template, so it can not be given messages: use its "
                "instruct variant, or prompts of text",
            )
        ids = self._tokenize(prompt.text, add_special_tokens=True)
        # A tokenizer that ends every text has ended what is to be gone on with.
        return ids[:-1] if ids[-1] == self._tokenizer.eos_token_id else ids

    def _tokenize(self, text: str, *, add_special_tokens: bool) -> list[int]:
        encoded = self._tokenizer(
            text, add_special_tokens=add_special_tokens, return_attention_mask=False
        )
        return list(encoded["input_ids"])
