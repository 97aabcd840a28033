"""What a row teaches: a dialogue, or a prompt and its completion as text."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from finetune_trainer.data.faults import Kind
from finetune_trainer.data.messages import Message, as_text


@dataclass(frozen=True)
class Dialogue:
    """Turns; assistant turns from index `learn_from` on are learned. Tools as JSON schemas.

    `ignored` names the row's keys that mean nothing here, `warnings` what is to be told of it.
    """

    messages: tuple[Message, ...]
    learn_from: int = 0
    tools: tuple[dict[str, Any], ...] = ()
    ignored: tuple[str, ...] = field(default=(), compare=False)
    warnings: tuple[Kind, ...] = field(default=(), compare=False)

    def learns(self, index: int) -> bool:
        """Tell whether a turn is learned, and not context."""
        turn = self.messages[index]
        return turn.role == "assistant" and turn.learned and index >= self.learn_from


@dataclass(frozen=True)
class TextPair:
    """A prompt and its completion as plain text."""

    prompt: str
    completion: str
    ignored: tuple[str, ...] = field(default=(), compare=False)
    warnings: tuple[Kind, ...] = field(default=(), compare=False)

    def dialogue(self) -> Dialogue:
        """Return the two turns that it becomes where the model has a chat template."""
        return Dialogue((Message("user", self.prompt), Message("assistant", self.completion)))


Row = Dialogue | TextPair


def row_key(row: Row) -> int:
    """Return 64 bits that rows have in common if they teach the same, in whichever format."""
    dialogue = row.dialogue() if isinstance(row, TextPair) else row
    text = as_text(dialogue.messages, dialogue.tools)
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")
