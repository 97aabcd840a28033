"""A batch that is being scored: how far it is, what it waits for, and its answers at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field

import numpy as np

from finetune_contract.rewards import Reward
from finetune_rewards.scores.samples import Answer
from finetune_rewards.services.circuit import Note

POLL_SECONDS = 0.5  # that `busy` waits for a batch's end

Answers = dict[str, Answer]


@dataclass
class Scoring:
    """A batch that is being scored; `answers` are there once it is not `busy` any more."""

    elsewhere: Future[Answers]  # by services and the runner
    here: Iterator[bool]  # puts models' answers into `found`, a part of the work at a time
    found: Answers
    counted: Callable[[Answers], Answers]
    notes: Notes
    answered: Answered
    answers: Answers = field(init=False)
    _busy: bool = field(default=True, init=False)

    @property
    def waits_for(self) -> str | None:
        """Return why the services that are down make it wait; None where none is."""
        return self.notes.latest

    @property
    def done(self) -> int:
        """Return how many completions every reward has answered."""
        return self.answered.by_all

    def busy(self) -> bool:
        """Wait a moment for the end; tell whether it is yet to come. Raises what `score` does.

        As long as model scorers have work to do, a part of it is done in the call.
        """
        if next(self.here, False):
            return True
        if self._busy and wait([self.elsewhere], POLL_SECONDS).done:
            self.answers = self.counted({**self.found, **self.elsewhere.result()})
            self._busy = False
        return self._busy


class Answered:
    """Which completions have answers; of each reward it is told in one thread, and read in any."""

    def __init__(self, rewards: Sequence[Reward], count: int) -> None:
        self._by = {reward.name: np.zeros(count, dtype=np.bool_) for reward in rewards}

    def by(self, name: str, start: int, stop: int) -> None:
        """Note that a reward has answered the completions from `start` up to `stop`."""
        self._by[name][start:stop] = True

    @property
    def by_all(self) -> int:
        """Return how many completions every reward has answered."""
        return int(np.logical_and.reduce([*self._by.values()]).sum())


class Notes:
    """Several services' notes as one."""

    def __init__(self) -> None:
        self.latest: str | None = None
        self._texts: dict[str, str] = {}

    def of(self, name: str) -> Note:
        """Return where one service tells its own."""

        def tell(text: str | None) -> None:
            self._texts.pop(name, None)
            if text is not None:
                self._texts[name] = text
            self.latest = "; ".join(self._texts.values()) or None

        return tell
