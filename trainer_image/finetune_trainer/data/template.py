"""A dialogue -> the text that the model's own chat template makes of it, and its learned turns."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from itertools import product
from typing import Any

from jinja2 import TemplateError

from finetune_contract.reasons import Reason
from finetune_trainer.data.bounds import Exceeded, bounded
from finetune_trainer.data.completeness import check_complete, drops_reasoning
from finetune_trainer.data.faults import Kind, RowError
from finetune_trainer.data.messages import Message, ToolCall
from finetune_trainer.data.rows import Dialogue
from finetune_trainer.data.turns import REASONING_OPENED, REMEDY, Turns, shared_length
from finetune_trainer.process.errors import Failure

# Templates that tell the model today's date get this one: rows must encode alike on every day.
TODAY = date(2024, 7, 26)

SECONDS = 20.0  # of a row, of which one takes thousandths
MEMORY_BYTES = 2**30  # of a rendering

_CLOCK = re.compile(r"strftime_now\(\s*(['\"])(.*?)\1\s*\)")


REASONING_FIELDS = ("reasoning_content", "thinking", "reasoning")  # of messages, by templates

Tokenizer = Any  # a fast one of transformers, which is not imported here


class _Refused(Exception):
    """The template raised an error; the text is its own."""


class Rendering:
    """A dialogue's text. The rest is found when it is asked for, by rendering parts of it."""

    def __init__(self, dialogue: Dialogue, turns: Turns, *, asks_for_reasoning: bool) -> None:
        self.text = turns.text
        self._dialogue = dialogue
        self._turns = turns
        self._asks_for_reasoning = asks_for_reasoning

    def check(self) -> None:
        """Raise RowError if the template leaves anything out."""
        check_complete(self.text, self._dialogue)

    def spans(self) -> Iterator[tuple[int, int]]:
        """Yield where the learned turns are in the text, in characters; raise RowError."""
        for index in range(len(self._dialogue.messages)):
            if self._dialogue.learns(index):
                yield self._turns.span(index)

    def warnings(self) -> tuple[Kind, ...]:
        """Return what is to be told of the row; raise RowError."""
        found = []
        if drops_reasoning(self.text, self._dialogue):
            found.append(Kind.REASONING_DROPPED)
        if self._asks_for_reasoning and not self._turns.opens_reasoning():
            found.append(Kind.REASONING_NOT_OPENED)
        return tuple(found)


_PROBE = (
    Message("user", "probe_question"),
    Message("assistant", "", (ToolCall("probe_name", {"probe_key": "probe_value"}, "call00001"),)),
    Message("tool", "probe_result", name="probe_name", call_id="call00001"),
    Message("assistant", "probe_answer"),
)


# Mistral's wants nine letters and digits for a call's id; Kimi's writes the id, not the name.
_PROBE_OF_ID = tuple(
    message._replace(
        tool_calls=tuple(replace(call, id="functions.probe_name:0") for call in message.tool_calls)
    )
    for message in _PROBE
)


@dataclass(frozen=True)
class _Writing:
    """How a template wants what a message says."""

    calls_as_text: bool = False  # the arguments of tool calls
    reasoning: str = REASONING_FIELDS[0]


class ChatTemplate:
    """The chat template of one tokenizer."""

    def __init__(
        self, tokenizer: Tokenizer, special: Sequence[str], seconds: float = SECONDS
    ) -> None:
        """Take the template of a tokenizer; a row has so many seconds of the processor."""
        self._tokenizer = tokenizer
        self._special = special
        self._eos: str | None = tokenizer.eos_token
        self._seconds = seconds
        self._sources: dict[bool, str] = {}
        self._writing = _Writing()
        self._knows_calls = self._knows_reasoning = False
        self._asks_for_reasoning = False
        self._closers: tuple[str, str] | None = None  # of a template that puts nothing after turns
        self._left = seconds
        self._probe()

    def render(self, dialogue: Dialogue) -> Rendering:
        """Return a dialogue as text; raise RowError. Of several the last one is to be asked."""
        self._begin(dialogue)
        turns = Turns(dialogue, self._text, self._special, self._closers)
        if self._asks_for_reasoning:
            turns.reopen_reasoning()
        return Rendering(dialogue, turns, asks_for_reasoning=self._asks_for_reasoning)

    def borders(self) -> tuple[frozenset[str], frozenset[str]]:
        """Return the special tokens that end an assistant's turn, and those that open a turn."""
        question, answer = _PROBE[0], Message("assistant", "probe_answer")
        try:
            whole = self._apply((question, answer))
            asked = self._apply((question,), header=True)
        except (_Refused, RowError):
            return frozenset(), frozenset()
        before = whole.partition(question.content)[0]
        header = before + asked.rpartition(question.content)[2]
        after, closers = whole.rpartition(answer.content)[2], "".join(self._closers or ())
        ends, more, opens = (
            frozenset(token for token in self._special if token in text)
            for text in (after, closers, header)
        )
        return ends | more, opens - ends

    def prompt(self, dialogue: Dialogue) -> str:
        """Return the text that an assistant's turn is to follow; raise RowError."""
        self._begin(dialogue)
        return self._text(dialogue.messages, dialogue.tools, True)

    def _begin(self, dialogue: Dialogue) -> None:
        self._left = self._seconds
        if any(message.tool_calls for message in dialogue.messages):
            self._learn_calls()
        if any(message.reasoning for message in dialogue.messages):
            self._learn_reasoning()

    def _text(
        self, messages: Sequence[Message], tools: Sequence[dict[str, Any]], header: bool
    ) -> str:
        try:
            return self._apply(messages, tools, header=header)
        except _Refused as refused:
            # The template's own words are told if they stand in it, and so hold nothing of the row.
            said, error = str(refused), refused.__cause__
            known = isinstance(error, TemplateError) and said in self._source(tools)
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
        begun = time.process_time()
        try:
            with bounded(self._left, MEMORY_BYTES):
                source = self._source(tools)
                given = (_for(source, message) for message in messages)
                text: str = self._tokenizer.apply_chat_template(
                    [_plain(message, self._writing) for message in given],
                    tools=list(tools) or None,
                    chat_template=source,
                    tokenize=False,
                    add_generation_prompt=header,
                )
        except Exceeded as exceeded:
            raise RowError(
                Kind.TEMPLATE_ENDLESS,
                f"takes more {exceeded} in the model's chat template than a row may have "
                f"({self._seconds:g} s, {MEMORY_BYTES / 2**30:g} GiB): shorten it, or {REMEDY}",
            ) from exceeded
        except Failure:
            raise
        except Exception as error:  # it is a program of a stranger's
            raise _Refused(str(error)) from error
        self._left = max(0.001, self._left - (time.process_time() - begun))
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
                    f"fixed, so rows would encode differently each day; {REMEDY}",
                )
            self._sources[bool(tools)] = source
        return source

    def _learn_calls(self) -> None:
        """Find out how the template wants arguments: as an object, else as JSON text."""
        if self._knows_calls:
            return
        before = self._writing
        for as_text, probe in product((False, True), (_PROBE, _PROBE_OF_ID)):
            self._writing = replace(before, calls_as_text=as_text)
            try:
                text = self._apply(probe)
            except _Refused:
                continue
            # Neither as Python writes an object, nor as a text is quoted once more.
            if "probe_name" in text and re.search(r"(?<!['\\])\"?\bprobe_key\b(?!')", text):
                self._knows_calls = True
                return
        self._writing = before
        raise RowError(
            Kind.TEMPLATE_DROPS_TOOLS, "has tool calls, which the model's chat template leaves out"
        )

    def _learn_reasoning(self) -> None:
        """Find out by which name the template reads reasoning, if it does."""
        if self._knows_reasoning:
            return
        before = self._writing
        thought = "probe_thought"
        thoughtful = Message("assistant", "probe_answer", reasoning=thought)
        for name in REASONING_FIELDS:
            self._writing = replace(before, reasoning=name)
            try:
                if thought in self._apply((_PROBE[0], thoughtful)):
                    break
            except _Refused:
                continue
        else:
            self._writing = before
        self._knows_reasoning = True

    def _probe(self) -> None:
        """Learn how headers end and what follows turns; refuse a template that lets none stop."""
        answer = Message("assistant", "probe_answer")
        try:
            text = self._apply((_PROBE[0], answer))
            header = self._apply(_PROBE[:1], header=True)
        except (_Refused, RowError):
            return  # each row will be refused for it
        self._asks_for_reasoning = REASONING_OPENED.search(header) is not None
        if not text.rstrip().endswith(answer.content):
            return
        after_answer = self._opener(text, (_PROBE[0], answer, _PROBE[0]))
        if after_answer is None and text.endswith(answer.content):
            after_answer = self._eos
            if after_answer is None:
                raise Failure(
                    Reason.MODEL_UNSUPPORTED,
                    "the base model's chat template puts nothing after an assistant turn, and its "
                    f"tokenizer has no end, so the model would not learn to stop; {REMEDY}",
                )
        if after_answer is not None:
            self._closers = after_answer, self._after_calls() or after_answer

    def _after_calls(self) -> str | None:
        """Return the special token with which a dialogue goes on after calls."""
        try:
            self._learn_calls()
            text, longer = self._apply(_PROBE[:2]), self._apply(_PROBE[:3])
        except (_Refused, RowError):
            return None
        # The call itself may be written otherwise by then.
        follows = longer[shared_length(text, longer) :].partition(_PROBE[2].content)[0]
        found = [(follows.find(token), token) for token in self._special if token in follows]
        return min(found, default=(0, None))[1]

    def _opener(self, text: str, longer: Sequence[Message]) -> str | None:
        """Return the special token with which a dialogue goes on after a text, if it does so."""
        try:
            follows = self._apply(longer).removeprefix(text).lstrip()
        except _Refused:
            return None
        found = [token for token in self._special if follows.startswith(token)]
        return max(found, key=len, default=None)


def _for(source: str, message: Message) -> Message:
    """Return a turn with a role that the template knows: a developer's was the system's before."""
    unknown = message.role == "developer" and "developer" not in source
    return message._replace(role="system") if unknown else message


def _plain(message: Message, writing: _Writing) -> dict[str, Any]:
    """Return a message as templates read it; what is None is left out."""
    calls = [_plain_call(call, as_text=writing.calls_as_text) for call in message.tool_calls]
    fields = {
        "role": message.role,
        "content": message.content,
        "tool_calls": calls or None,
        writing.reasoning: message.reasoning,
        "name": message.name,
        "tool_call_id": message.call_id,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _plain_call(call: ToolCall, *, as_text: bool) -> dict[str, Any]:
    arguments = json.dumps(call.arguments, ensure_ascii=False) if as_text else call.arguments
    function = {"name": call.name, "arguments": arguments}
    identity = {} if call.id is None else {"id": call.id}
    return {**identity, "type": "function", "function": function}
