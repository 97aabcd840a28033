"""The rows of one file -> dialogues and pairs of texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finetune_contract.recipe import DataFormat
from finetune_trainer.data.faults import Kind, RowError
from finetune_trainer.data.messages import Message
from finetune_trainer.data.reading.contents import said
from finetune_trainer.data.reading.fields import ROW_FIELDS, Meaning, is_learned, refuse
from finetune_trainer.data.reading.layouts import ANSWERS, Layout, layout_of, unmapped
from finetune_trainer.data.reading.names import near
from finetune_trainer.data.reading.tools import parse_tools, unquoted
from finetune_trainer.data.reading.turns import check_dialogue, check_learned, parse_messages
from finetune_trainer.data.rows import Dialogue, Row, TextPair


class RowReader:
    """Reads rows of one file: all have one format, which with Auto is that of the first.

    `columns` names the columns that hold what our names say.
    """

    def __init__(self, data_format: DataFormat, columns: Mapping[str, str] | None = None) -> None:
        self._wanted = self._known = data_format
        self._columns = dict(columns or {})
        self._mapped = tuple(sorted(self._columns.items()))
        self._told = data_format is not DataFormat.AUTO or "messages" in self._columns

    def __call__(self, value: dict[str, Any]) -> Row:
        """Return the checked row; raise RowError."""
        names = tuple(value)
        for ours, column in self._mapped:
            if column not in value and ours not in ("role", "content"):
                raise unmapped(ours, column, names)
        if None in value.values():  # Arrow gives a row the columns of all others
            names = tuple(name for name in names if value[name] is not None)
        layout = layout_of(names, self._wanted, self._mapped)
        if self._known is DataFormat.AUTO:
            self._known = layout.format
        elif layout.format is not self._known:
            raise RowError(
                Kind.MIXED_FORMATS, f"is written as {layout.format} in a file of {self._known}"
            )
        _check_tools_spelling(value, layout)
        ignored = set(layout.ignored)
        _obey(value, layout, ignored)
        if layout.format is DataFormat.MESSAGES:
            return self._dialogue(value, layout, ignored)
        return self._pair(value, layout, ignored)

    def _dialogue(self, value: dict[str, Any], layout: Layout, ignored: set[str]) -> Dialogue:
        column = layout.columns["messages"]
        messages = self._messages(value[column], column, ignored)
        if len(layout.columns) > 1:
            if "reasoning" in layout.columns and value[layout.columns["reasoning"]]:
                raise RowError(
                    Kind.FOREIGN_FIELD,
                    f"'{layout.columns['reasoning']}' stands beside the turns; give it to its turn",
                )
            messages = _with_system(messages, value, layout)
        if "prompt" in layout.ignored and not self._told:
            _check_echo(value["prompt"], messages)
        check_learned(messages)
        answer = next((name for name in ANSWERS if name in layout.ignored), None)
        if answer is not None and messages[-1].role != "assistant" and not self._told:
            raise RowError(
                Kind.AMBIGUOUS_FORMAT,
                f"has '{answer}' beside turns that end before the answer; add it to them as the "
                f"assistant's, or set data.train[].format: Messages to leave it out",
            )
        return _dialogue(messages, 0, _tools(value, layout), ignored)

    def _pair(self, value: dict[str, Any], layout: Layout, ignored: set[str]) -> Row:
        prompt, answer = (value[layout.columns[name]] for name in ("prompt", "completion"))
        if isinstance(answer, str):
            if not answer or answer.isspace():
                raise RowError(Kind.EMPTY_COMPLETION, "has an empty completion")
            if layout.text and isinstance(prompt, str):
                return TextPair(prompt, answer, tuple(sorted(ignored)))
        before = self._asked(prompt, value, layout, ignored)
        after = self._answered(answer, value, layout, ignored)
        history = self._history(value, layout, ignored)
        messages = _with_system((*history, *before, *after), value, layout)
        check_learned(after)
        if len(after) > len(before) and after[: len(before)] == before:
            raise RowError(
                Kind.AMBIGUOUS_FORMAT,
                f"has a '{layout.columns['completion']}' that begins with the prompt again: it is "
                f"the whole dialogue; set data.columns.messages: {layout.columns['completion']}",
            )
        learn_from = 0 if history else len(messages) - len(after)
        return _dialogue(messages, learn_from, _tools(value, layout), ignored)

    def _messages(self, value: Any, field: str, ignored: set[str]) -> tuple[Message, ...]:
        if isinstance(value, str) and value.lstrip().startswith("["):
            value = unquoted(value, Kind.WRONG_TYPE, f"'{field}'")
        return parse_messages(value, field, ignored, self._columns)

    def _asked(
        self, prompt: Any, value: dict[str, Any], layout: Layout, ignored: set[str]
    ) -> tuple[Message, ...]:
        """Return the turns of a prompt; text, and the input that it is about, are the user's."""
        column = layout.columns["prompt"]
        if isinstance(prompt, list):
            return self._messages(prompt, column, ignored)
        about = value[layout.columns["input"]] if "input" in layout.columns else ""
        for name, text in (("prompt", prompt), ("input", about)):
            if not isinstance(text, str):
                raise RowError(
                    Kind.WRONG_TYPE,
                    f"'{layout.columns[name]}' is neither text nor a list of messages",
                )
        joined = prompt if not about.strip() else f"{prompt}\n{about}" if prompt else about
        return (Message("user", joined),)

    def _answered(
        self, answer: Any, value: dict[str, Any], layout: Layout, ignored: set[str]
    ) -> tuple[Message, ...]:
        """Return the turns of an answer, with the reasoning that stands beside it."""
        column = layout.columns["completion"]
        if isinstance(answer, dict):  # LLaMA-Factory's chosen answers
            answer = [answer]
        if isinstance(answer, list):
            turns = self._messages(answer, column, ignored)
        elif isinstance(answer, str):
            turns = (Message("assistant", answer),)
        else:
            raise RowError(Kind.WRONG_TYPE, f"'{column}' is neither text nor a list of messages")
        if "reasoning" not in layout.columns:
            return turns
        name = layout.columns["reasoning"]
        thought, last = said(value[name], f"'{name}'")[0], turns[-1]
        if thought and (last.role != "assistant" or last.reasoning not in (None, thought)):
            raise RowError(Kind.FOREIGN_FIELD, f"'{name}' stands beside turns; give it to its turn")
        return (*turns[:-1], last._replace(reasoning=thought or last.reasoning))

    def _history(
        self, value: dict[str, Any], layout: Layout, ignored: set[str]
    ) -> tuple[Message, ...]:
        """Return the turns before a prompt: pairs of texts, or messages."""
        if "history" not in layout.columns:
            return ()
        column = layout.columns["history"]
        given = unquoted(value[column], Kind.WRONG_TYPE, f"'{column}'") or []
        if isinstance(given, list) and all(isinstance(item, list) for item in given):
            if any(
                len(pair) != 2 or not all(isinstance(text, str) for text in pair) for pair in given
            ):
                raise RowError(Kind.WRONG_TYPE, f"'{column}' is no list of pairs of texts")
            return tuple(
                Message(role, text)
                for pair in given
                for role, text in zip(("user", "assistant"), pair, strict=True)
            )
        return self._messages(given, column, ignored)


def _dialogue(
    messages: tuple[Message, ...],
    learn_from: int,
    tools: tuple[dict[str, Any], ...],
    ignored: set[str],
) -> Dialogue:
    check_dialogue(messages)
    open_end = messages[-1].role != "assistant"
    warnings = (Kind.LAST_TURN_NOT_ASSISTANT,) if open_end else ()
    return Dialogue(messages, learn_from, tools, tuple(sorted(ignored)), warnings)


def _check_tools_spelling(value: dict[str, Any], layout: Layout) -> None:
    """Find tools that would be left out; any other unknown field is the user's own."""
    for key in layout.ignored:
        if "tools" not in layout.columns and isinstance(value[key], list) and near("tools", (key,)):
            raise RowError(Kind.MISSPELT_FIELD, f"has '{key}'; is 'tools' meant?")


def _obey(value: dict[str, Any], layout: Layout, ignored: set[str]) -> None:
    """Raise RowError for a field of another tool that says what can not be done."""
    for name, field in layout.foreign:
        if field.meaning not in (Meaning.LEARNED, Meaning.CONTEXT):
            refuse(field, value[name], "")
        elif field.name == "label" and _truth(value[name]) is None:  # a class of one's own
            ignored.add(name)
        elif is_learned(ROW_FIELDS, {field.name: _said(value[name])}, "") is False:
            raise RowError(
                Kind.FOREIGN_FIELD, f"'{name}' says that it is not to be learned; leave it out"
            )


def _truth(value: Any) -> bool | None:
    """Return a truth value, which is text in a cell of CSV; None for anything else."""
    text = value.lower() if isinstance(value, str) else None
    return value if isinstance(value, bool) else {"true": True, "false": False}.get(text or "")


def _said(value: Any) -> Any:
    truth = _truth(value)
    return value if truth is None else truth


def _with_system(
    messages: tuple[Message, ...], value: dict[str, Any], layout: Layout
) -> tuple[Message, ...]:
    """Return the turns after what stands beside them as the system's."""
    if "system" not in layout.columns:
        return messages
    column = layout.columns["system"]
    text = said(value[column], f"'{column}'")[0]
    if not text.strip() or messages[0] == Message("system", text):
        return messages
    if messages[0].role == "system":
        raise RowError(
            Kind.FOREIGN_FIELD, f"has '{column}' beside a system turn that says another thing"
        )
    return (Message("system", text), *messages)


def _check_echo(prompt: Any, messages: tuple[Message, ...]) -> None:
    """Raise RowError unless a prompt beside turns is what the user says first in them."""
    first = next((turn.content for turn in messages if turn.role == "user"), None)
    if not isinstance(prompt, str) or first is None or prompt.strip() != first.strip():
        raise RowError(
            Kind.AMBIGUOUS_FORMAT,
            "has messages as well as prompt or completion; set data.train[].format",
        )


def _tools(value: dict[str, Any], layout: Layout) -> tuple[dict[str, Any], ...]:
    column = layout.columns.get("tools")
    return () if column is None else parse_tools(value[column], column)
