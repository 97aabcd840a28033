"""Where the turns of a dialogue stand in its rendering.

An assistant turn begins after the header that `add_generation_prompt` gives and ends with what
closes it. Where the dialogue up to a turn renders to a prefix of the whole, that prefix says where.
Templates that render earlier turns differently once a dialogue goes on, as those of reasoning
models do, are measured instead: a mark put at a turn's end shows where that end stands, and what
follows it there must be what follows it where the turn is the last, or only the words are learned.
Of a header, what the turn is rendered with counts. A template by which a turn can not be told from
its header is refused, because a guess could teach the model to write headers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from finetune_trainer.data.completeness import THOUGHT_BEGIN, THOUGHT_END, thought_of
from finetune_trainer.data.faults import Kind, RowError
from finetune_trainer.data.messages import Message
from finetune_trainer.data.rows import Dialogue

REASONING_OPENED = re.compile(r"<think>\s*(</think>\s*)?\Z")
REMEDY = "give the job another one (spec.model.chatTemplate)"
KEPT = 8  # renderings of a dialogue's beginnings: those of a turn are asked for together
_BORDER = re.compile(r"(?<=[>\]\n])[^>\]\n]*\Z")  # after the last tag, token or line of a text
_MARKS = tuple(map(chr, range(0xE000, 0xE100)))  # of Unicode, for private use

# (messages, tools, whether the next assistant turn's header follows) -> text
Render = Callable[[Sequence[Message], Sequence[dict[str, Any]], bool], str]


class Turns:
    """The turns of one dialogue. `special` are the tokens that may close a turn.

    `closers` are for a template that puts nothing after a turn: what stands there once a dialogue
    goes on after an answer, and after calls. That is where generation stops, so it is put after the
    last turn too.
    """

    def __init__(
        self,
        dialogue: Dialogue,
        render: Render,
        special: Sequence[str],
        closers: tuple[str, str] | None = None,
    ) -> None:
        self._dialogue = dialogue
        self._messages = dialogue.messages
        self._tools = dialogue.tools
        self._render = render
        self._special = special
        self._closers = closers
        self._rendered: dict[tuple[int, bool], str] = {}
        self.text = render(self._messages, self._tools, False)
        last = self._messages[-1]
        if closers is not None and last.role == "assistant":
            self.text += closers[bool(last.tool_calls)]

    def span(self, index: int) -> tuple[int, int]:
        """Return where an assistant turn begins, its header left out, and where it ends."""
        closed = self._through(index + 1)
        start = self._begin(index) if index else self._begin_of_all()
        end = len(closed) if self.text.startswith(closed) else self._end(index)
        if self._closers is not None:
            end = self._through_closer(end)
        if start >= end:
            raise _unstable("an assistant turn")
        return start, end

    def reopen_reasoning(self) -> None:
        """Put the last turn's reasoning into what its header opens, where it is left out.

        So do templates that keep only answers, and so is what the model is going to write.
        """
        last = len(self._messages) - 1
        message = self._messages[last]
        thought, gap = thought_of(message)
        if message.role != "assistant" or not last or not thought or thought.strip() in self.text:
            return
        opened = REASONING_OPENED.search(self._through(last, header=True))
        if opened is None or opened[1] is not None:
            return
        start, _ = self.span(last)
        words = self.text[start:]
        if opened[0].endswith("\n"):
            thought = thought.lstrip("\n")
        closed = "" if words.startswith(THOUGHT_END) else THOUGHT_END + gap
        if words[:1].isspace():
            closed = closed.rstrip()
        self.text = self.text[:start] + opened[0] + thought + closed + words

    def opens_reasoning(self) -> bool:
        """Tell whether the last turn that is learned follows the reasoning its header opens."""
        last = max(i for i in range(len(self._messages)) if self._dialogue.learns(i))
        opened = REASONING_OPENED.search(self._through(last, header=True)) if last else None
        start, _ = self.span(last)
        return opened is None or self.text.startswith(opened[0], start - len(opened[0]))

    def _begin(self, index: int) -> int:
        header = self._through(index, header=True)
        return len(header) if self.text.startswith(header) else self._start(index, header)

    def _begin_of_all(self) -> int:
        """Return where a turn begins that nothing stands before, which templates may not render: it
        has the header that follows a question."""
        words = self._beginning_of_words(0)
        asked = (Message("user", self._unused(self.text)),)
        closed, header = (self._render(asked, self._tools, more) for more in (False, True))
        if not header.startswith(closed):
            raise _unstable("the header of an assistant turn")
        header = header[len(closed) :]
        if not header.strip():
            return words
        for expected in (header, REASONING_OPENED.sub("", header)):
            firm = expected.rstrip()
            at = self.text.rfind(firm, 0, words) if firm else -1
            if at >= 0:
                end = at + len(firm)
                return end + shared_length(expected[len(firm) :], self.text[end:words])
        raise _unstable("the header of an assistant turn")

    def _start(self, index: int, header: str) -> int:
        """Return where the header ends in the text, as far as it stands there.

        It may hold more than a rendered turn has, such as reasoning that it opens.
        """
        at = self._end_of_words(index - 1, len(self._messages))
        follows = header[self._end_of_words(index - 1, index, header=True) :]
        for expected in (follows, REASONING_OPENED.sub("", follows)):
            if self.text.startswith(expected, at):
                return at + len(expected)
        words = self._beginning_of_words(index)
        stands = self.text[at:words]
        shared = stands[: self._whole(stands, shared_length(follows, stands))]
        own = stands[len(shared) :]
        # Header and turn part ways: at a border of what the header is made of, but for white space.
        kept = shared if not own.strip() else _BORDER.split(shared)[0]
        own = stands[len(kept) :]
        calls = bool(self._messages[index].tool_calls)
        if not own.strip() or (kept.strip() and (calls or THOUGHT_END in own)):
            return at + len(kept)
        if calls or words < at:
            raise _unstable("the header of an assistant turn")
        return words

    def _end(self, index: int) -> int:
        at = self._end_of_words(index, len(self._messages))
        closing = self._through(index + 1)[self._end_of_words(index, index + 1) :]
        if self.text.startswith(closing, at):
            return at + len(closing)
        # Some templates close the last turn, and with it the dialogue, with one token more.
        shared = closing[: shared_length(closing, self.text[at:])]
        ends = [shared.rfind(token) + len(token) for token in self._special if token in shared]
        if ends:
            return at + max(ends)
        if self._messages[index].tool_calls:
            return self._end_of_call(at + len(shared), closing[len(shared) :])
        # Others close it with a token of its own. At that of earlier turns generation would go on.
        return at + self._whole(self.text[at:], len(shared.rstrip()))

    def _end_of_call(self, at: int, closing: str) -> int:
        """Return where the next special token ends, which must close the last turn too."""
        places = [(self.text.find(token, at), token) for token in self._special]
        place, token = min((found for found in places if found[0] >= 0), default=(0, ""))
        if not token or (token not in closing and token not in (self._closers or ())):
            raise _unstable("what closes an earlier assistant turn")
        return place + len(token)

    def _through_closer(self, end: int) -> int:
        """Return where the token ends that stands next, which closes a turn by opening another."""
        after = len(self.text) - len(self.text[end:].lstrip())
        found = [token for token in self._special if self.text.startswith(token, after)]
        return after + len(max(found, key=len)) if found else end

    def _whole(self, text: str, length: int) -> int:
        """Return the length, or less where it would cut a special token of the text."""
        starts = [
            start
            for token in self._special
            for start in range(max(0, length - len(token) + 1), length)
            if text.startswith(token, start)
        ]
        return min([length, *starts])

    def _beginning_of_words(self, index: int) -> int:
        """Return where what a turn says begins in the text, be it reasoning, words or a call."""
        mark = self._unused(self.text)
        messages = [*self._messages]
        for changed in _begun(messages[index], mark):
            messages[index] = changed
            found = self._render(messages, self._tools, False)
            if mark in found:
                return shared_length(self.text, found)
        raise _unstable("the beginning of an assistant turn")

    def _end_of_words(self, index: int, count: int, *, header: bool = False) -> int:
        """Return where the words of a turn end in the rendering of the first `count` messages.

        That is where a mark that is put there makes a change.
        """
        if index < 0:
            return 0
        plain = self._through(count, header=header)
        mark = self._unused(plain)
        messages = [*self._messages[:count]]
        messages[index] = _marked(messages[index], mark)
        changed = self._render(messages, self._tools, header)
        if mark not in changed:
            raise _unstable(f"the end of a turn ({messages[index].role})")
        return shared_length(plain, changed)

    @staticmethod
    def _unused(text: str) -> str:
        return next(mark for mark in _MARKS if mark not in text)

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


def shared_length(left: str, right: str) -> int:
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


def _begun(message: Message, mark: str) -> Iterator[Message]:
    """Yield a message with a mark before what it says: a template may leave out some of that."""
    if message.reasoning:
        yield message._replace(reasoning=mark + message.reasoning)
    if message.content:
        yield message._replace(content=mark + message.content)
    for border in (THOUGHT_BEGIN, THOUGHT_END):
        before, found, after = message.content.rpartition(border)
        if found:
            yield message._replace(content=before + found + mark + after)
    if message.tool_calls:
        first, *calls = message.tool_calls
        yield message._replace(tool_calls=(replace(first, name=mark + first.name), *calls))


def _unstable(what: str) -> RowError:
    return RowError(
        Kind.TEMPLATE_UNSTABLE,
        f"can not be learned: once the dialogue goes on, the model's chat template renders {what} "
        f"differently; {REMEDY}",
    )
