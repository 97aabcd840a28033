"""What a runner answers its clients, as JSON: which rewards it holds, and what they scored."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import TypeAdapter

from finetune_rewards.runner.protocol import Problem
from finetune_rewards.scores.samples import Answer


@dataclass(frozen=True)
class Described:
    """A reward as the runner holds it; `revision` is the digest of the user's source."""

    name: str
    revision: str | None = None
    problem: Problem | None = None


DESCRIBED = TypeAdapter(list[Described])
ANSWERS = TypeAdapter(dict[str, Answer])  # by the reward's name
