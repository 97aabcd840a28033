"""Where the turns of a dialogue stand in its rendering.

An assistant turn begins after the header that `add_generation_prompt` gives and ends with what
closes it. Where the dialogue up to a turn renders to a prefix of the whole, that prefix says where.
Templates that render earlier turns differently once a dialogue goes on, as those of reasoning
models do, are measured instead: a mark put at a turn's end shows where that end stands, and what
follows it there must be what follows it where the turn is the last. A template of which neither
holds is refused, because a guess could teach the model to write headers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from finetune_trainer.data.faults import Kind, RowError
from finetune_trainer.data.messages import Message
from finetune_trainer.data.rows import Dialogue

REASONING_OPENED = re.compile(r"<think>\s*(</think>\s*)?\Z")
REMEDY = "set another chat_template in the model's tokenizer_config.json"
KEPT = 8  # renderings of a dialogue's beginnings: those of a turn are asked for together
_MARKS = tuple(map(chr, range(0xE000, 0xE100)))  # of Unicode, for private use

# (messages, tools, whether the next assistant turn's header follows) -> text
Render = Callable[[Sequence[Message], Sequence[dict[str, Any]], bool], str]


class Turns:
    """The turns of one dialogue. `special` are the tokens that may close a turn."""

    def __init__(self, dialogue: Dialogue, render: Render, special: Sequence[str]) -> None:
        self._messages = dialogue.messages
        self._tools = dialogue.tools
        self._render = render
        self._special = special
        self._rendered: dict[tuple[int, bool], str] = {}
        self.text = render(self._messages, self._tools, False)

    def span(self, index: int) -> tuple[int, int]:
        """Return where an assistant turn begins, its header left out, and where it ends."""
        header, closed = self._through(index, header=True), self._through(index + 1)
        start = len(header) if self.text.startswith(header) else self._start(index)
        end = len(closed) if self.text.startswith(closed) else self._end(index)
        if start >= end:
            raise _unstable("an assistant turn")
        return start, end

    def opens_reasoning(self) -> bool:
        """Tell whether the last turn follows the opened reasoning that its header ends with."""
        last = len(self._messages) - 1
        opened = REASONING_OPENED.search(self._through(last, header=True))
        start, _ = self.span(last)
        return opened is None or self.text.startswith(opened[0], start - len(opened[0]))

    def _start(self, index: int) -> int:
        at = self._end_of_words(index - 1, len(self._messages))
        header = self._through(index, header=True)
        follows = header[self._end_of_words(index - 1, index, header=True) :]
        # Earlier turns, or all, may be rendered without the reasoning that the header opens.
        for expected in (follows, REASONING_OPENED.sub("", follows)):
            if self.text.startswith(expected, at):
                return at + len(expected)
        raise _unstable("the header of an assistant turn")

    def _end(self, index: int) -> int:
        at = self._end_of_words(index, len(self._messages))
        closing = self._through(index + 1)[self._end_of_words(index, index + 1) :]
        if self.text.startswith(closing, at):
            return at + len(closing)
        # Some templates close the last turn, and with it the dialogue, with one token more.
        shared = closing[: _shared_length(closing, self.text[at:])]
        ends = [shared.rfind(token) + len(token) for token in self._special if token in shared]
        if not ends:
            raise _unstable("what closes an earlier assistant turn")
        return at + max(ends)

    def _end_of_words(self, index: int, count: int, *, header: bool = False) -> int:
        """Return where the words of a turn end in the rendering of the first `count` messages.

        That is where a mark that is put there makes a change.
        """
        plain = self._through(count, header=header)
        mark = next(mark for mark in _MARKS if mark not in plain)
        messages = [*self._messages[:count]]
        messages[index] = _marked(messages[index], mark)
        changed = self._render(messages, self._tools, header)
        if mark not in changed:
            raise _unstable(f"the end of a turn ({messages[index].role})")
        return _shared_length(plain, changed)

    def _through(self, count: int, *, header: bool = False) -> str:
        """Return the rendering of the first `count` messages."""
        if count == len(self._messages) and not header:
            return self.text
        key = count, header
        if key not in self._rendered:
            if len(self._rendered) == KEPT:
                del self._rendered[next(iter(self._rendered))]
            self._rendered[key] = self._render(self._messages[:count], self._tools, header)
        return self._rendered[key]


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


def _unstable(what: str) -> RowError:
    return RowError(
        Kind.TEMPLATE_UNSTABLE,
        f"can not be learned: once the dialogue goes on, the model's chat template renders {what} "
        f"differently; {REMEDY}",
    )
