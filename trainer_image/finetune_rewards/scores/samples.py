"""What rewards are asked and what they answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

Turn = dict[str, Any]  # {"role": ..., "content": ...}, and what else a row's message holds
Text = str | list[Turn]  # plain text, or the messages of a dialogue


@dataclass(frozen=True)
class Samples:
    """N completions; every list has N entries in one order.

    A completion has the kind of its prompt: text, or a list with one assistant message.
    """

    prompts: list[Text]
    completions: list[Text]
    completion_ids: list[list[int]]  # without padding; the end-of-turn token included
    columns: dict[str, list[Any]] = field(default_factory=dict)  # the rows' other columns
    step: int = 0  # optimizer steps done
    opened: list[str] = field(default_factory=list)  # the tags that each prompt ends with

    def __post_init__(self) -> None:
        if not self.opened:
            self.opened.extend([""] * len(self.completions))

    def __len__(self) -> int:
        return len(self.completions)

    def slice(self, start: int, stop: int) -> Samples:
        """Return the samples from `start` up to `stop`."""
        return Samples(
            self.prompts[start:stop],
            self.completions[start:stop],
            self.completion_ids[start:stop],
            {name: values[start:stop] for name, values in self.columns.items()},
            self.step,
            self.opened[start:stop],
        )


def text_of(completion: Text) -> str:
    """Return a completion's text: its own, or its messages' contents."""
    if isinstance(completion, str):
        return completion
    return "\n".join(str(turn.get("content") or "") for turn in completion)


class Item(NamedTuple):
    """A reward's answer for one completion: a finite score, an error, or neither: it abstains."""

    score: float | None = None
    error: str | None = None


@dataclass(frozen=True)
class Answer:
    """A reward's answer for a batch: one item per completion, and how long it took."""

    items: list[Item]
    seconds: float

    @classmethod
    def failed(cls, count: int, error: str, seconds: float = 0.0) -> Answer:
        """Return an error for each of `count` completions."""
        return cls([Item(error=error)] * count, seconds)
