"""Tokens that steer a model, written into what a row says, where they are tokens all the same.

A completion that ends with the token that ends a turn would teach to write it twice, and one that
opens a turn would teach to speak for the user. Elsewhere such a token may be meant.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from finetune_trainer.data.faults import Kind, RowError
from finetune_trainer.data.messages import Message
from finetune_trainer.data.rows import Dialogue, TextPair


class ControlTokens:
    """The special tokens of a tokenizer; some of them end a turn, and some open one."""

    def __init__(
        self, special: Collection[str], ends: Collection[str], opens: Collection[str]
    ) -> None:
        longest_first = sorted({*special, *ends, *opens}, key=len, reverse=True)
        self._any = re.compile("|".join(map(re.escape, filter(None, longest_first))) or r"(?!)")
        self._ends = tuple(filter(None, ends))
        self._opens = frozenset(opens)

    def check(self, row: Dialogue | TextPair) -> tuple[Kind, ...]:
        """Return what is to be told of a row; raise RowError if it is not to be learned so."""
        if isinstance(row, TextPair):
            found = self._in_learned(row.completion, "the completion")
            return (Kind.CONTROL_TOKEN,) if found or self._any.search(row.prompt) else ()
        found = False
        for index, message in enumerate(row.messages):
            if row.learns(index):
                found |= self._in_learned(message.content, f"turn {index + 1}")
                found |= self._in_learned(message.reasoning or "", f"turn {index + 1}")
            else:
                found |= any(self._any.search(text) is not None for text in _texts(message))
        return (Kind.CONTROL_TOKEN,) if found else ()

    def _in_learned(self, text: str, where: str) -> bool:
        """Tell whether a text that is learned has any; raise RowError where it may not."""
        written = {match[0] for match in self._any.finditer(text)}
        if not written:
            return False
        end = next((token for token in self._ends if text.rstrip().endswith(token)), None)
        if end is not None:
            raise RowError(
                Kind.END_TOKEN_WRITTEN,
                f"{where} ends with {end}, which is put after it in any case: remove it",
            )
        opened = sorted(written & self._opens)
        if opened:
            raise RowError(
                Kind.TURN_OPENED, f"{where} has {opened[0]}, which opens a turn: write turns apart"
            )
        return True


def _texts(message: Message) -> Iterator[str]:
    yield message.content
    if message.reasoning:
        yield message.reasoning
