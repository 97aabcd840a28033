"""A dialogue -> the text that the model's own chat template makes of it, and where its turns stand.

An assistant turn begins after the header that `add_generation_prompt` gives and ends with what
closes it. Where the dialogue up to a turn renders to a prefix of the whole, that prefix says where.
Templates that render earlier turns differently once a dialogue goes on, as those of reasoning
models do, are measured instead: a mark put at a turn's end shows where that end stands, and what
follows it there must be what follows it where the turn is the last. A template of which neither
holds is refused, because a guess could teach the model to write headers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, Protocol

from jinja2 import TemplateError

from finetune_contract.reasons import Reason
from finetune_trainer.data.completeness import check_complete, drops_reasoning
from finetune_trainer.data.faults import Kind, RowError
from finetune_trainer.data.messages import Message, ToolCall
from finetune_trainer.data.rows import Dialogue
from finetune_trainer.errors import Failure

# Templates that tell the model today's date get this one: rows must encode alike on every day.
TODAY = date(2024, 7, 26)

_REASONING_OPENED = re.compile(r"<think>\s*(</think>\s*)?\Z")
_CLOCK = re.compile(r"strftime_now\(\s*(['\"])(.*?)\1\s*\)")

_MARKS = tuple(map(chr, range(0xE000, 0xE100)))  # of Unicode, for private use


class Tokenizer(Protocol):
    """What is used of a transformers fast tokenizer."""

    chat_template: Any
    eos_token_id: int | None
    eos_token: str | None
    all_special_ids: list[int]
    added_tokens_decoder: dict[int, Any]

    def __call__(self, text: str, **options: Any) -> Any:
        """Tokenise."""

    def get_chat_template(self, chat_template: str | None, tools: Any) -> str:
        """Return the template for dialogues with or without tools."""

    def apply_chat_template(self, conversation: Any, **options: Any) -> Any:
        """Render a conversation."""


@dataclass(frozen=True)
class Rendering:
    """A dialogue's text and the spans of its learned turns in it, in characters."""

    text: str
    turns: tuple[tuple[int, int], ...]
    warnings: tuple[Kind, ...]


_PROBE = (
    Message("user", "probe_question"),
    Message("assistant", "", (ToolCall("probe_name", {"probe_key": "probe_value"}, "call00001"),)),
    Message("tool", "probe_result", name="probe_name", call_id="call00001"),
    Message("assistant", "probe_answer"),
)


class ChatTemplate:
    """The chat template of one tokenizer."""

    def __init__(self, tokenizer: Tokenizer, special: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._special = special
        self._sources: dict[bool, str] = {}
        self._calls_as_text: bool | None = None  # how it wants the arguments of tool calls
        self._asks_for_reasoning = False
        self._probe()

    def render(self, dialogue: Dialogue) -> Rendering:
        """Return the text of a dialogue; raise RowError if the template leaves anything out."""
        if any(message.tool_calls for message in dialogue.messages):
            self._learn_calls()
        text = self._text(dialogue.messages, dialogue)
        check_complete(text, dialogue)
        turns = tuple(
            self._turn(index, text, dialogue)
            for index, message in enumerate(dialogue.messages)
            if message.role == "assistant" and index >= dialogue.learn_from
        )
        warnings = []
        if drops_reasoning(text, dialogue):
            warnings.append(Kind.REASONING_DROPPED)
        if not self._opens_reasoning(text, turns[-1][0], dialogue):
            warnings.append(Kind.REASONING_NOT_OPENED)
        return Rendering(text, turns, tuple(warnings))

    def _opens_reasoning(self, text: str, start: int, dialogue: Dialogue) -> bool:
        """Tell whether reasoning stands open before the last turn, if its header opens it."""
        if not self._asks_for_reasoning:
            return True
        header = self._text(dialogue.messages[:-1], dialogue, header=True)
        opened = _REASONING_OPENED.search(header)
        return opened is None or text.startswith(opened[0], start - len(opened[0]))

    def _turn(self, index: int, text: str, dialogue: Dialogue) -> tuple[int, int]:
        """Return where an assistant turn begins, its header left out, and where it ends."""
        before, through = dialogue.messages[:index], dialogue.messages[: index + 1]
        header = self._text(before, dialogue, header=True)
        start = len(header) if text.startswith(header) else self._start(before, text, dialogue)
        is_last = len(through) == len(dialogue.messages)
        rendered = text if is_last else self._text(through, dialogue)
        end = len(rendered) if text.startswith(rendered) else self._end(through, text, dialogue)
        if start >= end:
            raise _unstable("an assistant turn")
        return start, end

    def _start(self, before: Sequence[Message], text: str, dialogue: Dialogue) -> int:
        at = self._end_of_words(len(before) - 1, dialogue.messages, dialogue)
        header = self._text(before, dialogue, header=True)
        follows = header[self._end_of_words(len(before) - 1, before, dialogue, header=True) :]
        # Earlier turns, or all, may be rendered without the reasoning that the header opens.
        for expected in (follows, _REASONING_OPENED.sub("", follows)):
            if text.startswith(expected, at):
                return at + len(expected)
        raise _unstable("the header of an assistant turn")

    def _end(self, through: Sequence[Message], text: str, dialogue: Dialogue) -> int:
        at = self._end_of_words(len(through) - 1, dialogue.messages, dialogue)
        closing = self._text(through, dialogue)
        closing = closing[self._end_of_words(len(through) - 1, through, dialogue) :]
        if text.startswith(closing, at):
            return at + len(closing)
        # Some templates close the last turn, and with it the dialogue, with one token more.
        shared = closing[: _shared_length(closing, text[at:])]
        ends = [shared.rfind(token) + len(token) for token in self._special if token in shared]
        if not ends:
            raise _unstable("what closes an earlier assistant turn")
        return at + max(ends)

    def _end_of_words(
        self, index: int, messages: Sequence[Message], dialogue: Dialogue, *, header: bool = False
    ) -> int:
        """Return where the last word of a turn ends in a rendering: there a mark makes a change."""
        plain = self._text(messages, dialogue, header=header)
        mark = next(mark for mark in _MARKS if mark not in plain)
        marked = [*messages]
        marked[index] = _marked(messages[index], mark)
        changed = self._text(marked, dialogue, header=header)
        if mark not in changed:
            raise _unstable(f"the end of a turn ({messages[index].role})")
        return _shared_length(plain, changed)

    def _text(
        self, messages: Sequence[Message], dialogue: Dialogue, *, header: bool = False
    ) -> str:
        try:
            return self._apply(messages, dialogue.tools, header=header)
        except (TemplateError, TypeError) as error:
            # The template's own words are told if they stand in it, and so hold nothing of the row.
            said = str(error)
            known = isinstance(error, TemplateError) and said in self._source(dialogue.tools)
            raise RowError(
                Kind.TEMPLATE_REFUSES,
                f"is refused by the model's chat template{f': {said}' if known and said else ''}",
            ) from error

    def _apply(
        self,
        messages: Sequence[Message],
        tools: Sequence[dict[str, Any]] = (),
        *,
        header: bool = False,
    ) -> str:
        text: str = self._tokenizer.apply_chat_template(
            [_plain(message, calls_as_text=bool(self._calls_as_text)) for message in messages],
            tools=list(tools) or None,
            chat_template=self._source(tools),
            tokenize=False,
            add_generation_prompt=header,
        )
        return text

    def _source(self, tools: Sequence[dict[str, Any]]) -> str:
        """Return the template with its calls of the clock answered."""
        if (source := self._sources.get(bool(tools))) is None:
            source = self._tokenizer.get_chat_template(None, tools=list(tools) or None)
            source = _CLOCK.sub(lambda call: repr(TODAY.strftime(call[2])), source)
            if "strftime_now(" in source:
                raise Failure(
                    Reason.MODEL_UNSUPPORTED,
                    "the base model's chat template asks for the time in a way that can not be "
                    f"fixed, so rows would encode differently each day; {_REMEDY}",
                )
            self._sources[bool(tools)] = source
        return source

    def _learn_calls(self) -> None:
        """Find out how the template wants arguments: as an object, else as JSON text."""
        if self._calls_as_text is not None:
            return
        for self._calls_as_text in (False, True):
            try:
                text = self._apply(_PROBE)
            except (TemplateError, TypeError):
                continue
            # Neither as Python writes an object, nor as a text is quoted once more.
            if "probe_name" in text and re.search(r"(?<!['\\])\"?\bprobe_key\b(?!')", text):
                return
        self._calls_as_text = None
        raise RowError(
            Kind.TEMPLATE_DROPS_TOOLS, "has tool calls, which the model's chat template leaves out"
        )

    def _probe(self) -> None:
        """Refuse a template after whose turns a model would not know that it may stop."""
        answer = Message("assistant", "probe_answer")
        try:
            text = self._apply((_PROBE[0], answer))
            header = self._apply(_PROBE[:1], header=True)
        except (TemplateError, TypeError):
            return  # each row will be refused for it
        self._asks_for_reasoning = _REASONING_OPENED.search(header) is not None
        if text.endswith(answer.content):
            raise Failure(
                Reason.MODEL_UNSUPPORTED,
                "the base model's chat template puts nothing after an assistant turn, so the model "
                f"would not learn to stop; {_REMEDY}",
            )


_REMEDY = "set another chat_template in the model's tokenizer_config.json"


def _plain(message: Message, *, calls_as_text: bool) -> dict[str, Any]:
    """Return a message as templates read it; what is None is left out."""
    calls = [_plain_call(call, as_text=calls_as_text) for call in message.tool_calls]
    fields = {
        "role": message.role,
        "content": message.content,
        "tool_calls": calls or None,
        "reasoning_content": message.reasoning,
        "name": message.name,
        "tool_call_id": message.call_id,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _plain_call(call: ToolCall, *, as_text: bool) -> dict[str, Any]:
    arguments = json.dumps(call.arguments, ensure_ascii=False) if as_text else call.arguments
    function = {"name": call.name, "arguments": arguments}
    identity = {} if call.id is None else {"id": call.id}
    return {**identity, "type": "function", "function": function}


def _shared_length(left: str, right: str) -> int:
    """Return how many characters two texts begin with in common."""
    low, high = 0, min(len(left), len(right))
    while low < high:
        middle = (low + high + 1) // 2
        if left[:middle] == right[:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _marked(message: Message, mark: str) -> Message:
    if message.tool_calls:
        *calls, last = message.tool_calls
        return message._replace(tool_calls=(*calls, replace(last, name=last.name + mark)))
    return message._replace(content=message.content + mark)


def _unstable(what: str) -> Failure:
    return Failure(
        Reason.MODEL_UNSUPPORTED,
        f"the base model's chat template renders {what} differently once the dialogue goes on, so "
        f"turns can not be told apart; {_REMEDY}",
    )
