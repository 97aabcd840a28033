"""Completions of a buffer: drawn and scored, and groups without spread drawn again."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt

from finetune_contract.progress import Phase
from finetune_rewards.panel import Panel
from finetune_trainer.batch.order import Indices
from finetune_trainer.methods.grpo.advantages import Advantages, advantages
from finetune_trainer.methods.grpo.prompt_order import PromptOrder
from finetune_trainer.methods.grpo.prompts.dataset import Prompts
from finetune_trainer.methods.grpo.recipe import grpo_of
from finetune_trainer.methods.grpo.rewards.scores import Scores, Share, decoded, scored
from finetune_trainer.methods.grpo.rewards.texts import Texts
from finetune_trainer.rollout.base import Completion, Request, RolloutEngine
from finetune_trainer.run import Run

Stops = Callable[[], bool]


@dataclass(frozen=True)
class Rollouts:
    """N completions of prompts, in groups that stand one after the other; alike on all ranks."""

    rows: Indices  # [groups], of the prompts in their dataset
    completions: list[Completion]  # N
    scores: Scores
    found: Advantages
    drawn: int  # groups, those that were replaced among them
    spent: dict[Phase, float]  # seconds, on rollouts and on scores
    first: Rollouts | None = None  # before any group was replaced; None where none was

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Return the completions' tokens, [N]."""
        return np.array([len(one.tokens) for one in self.completions], dtype=np.int64)

    @property
    def truncated(self) -> npt.NDArray[np.bool_]:
        """Return which completions were cut, [N]."""
        return np.array([one.truncated for one in self.completions], dtype=np.bool_)


class Collector:
    """Makes the rollouts of buffers; all ranks must ask for the same ones."""

    def __init__(
        self,
        run: Run,
        order: PromptOrder,
        prompts: Prompts,
        texts: Texts,
        engine: RolloutEngine,
        panel: Panel,
    ) -> None:
        self._recipe = grpo_of(run.config.recipe)
        self._order = order
        self._prompts = prompts
        self._texts = texts
        self._engine = engine
        self._panel = panel
        self._ranks = run.ranks
        self._reporter = run.reporter
        self._spent: dict[Phase, float] = {}  # seconds, on the buffer that is being made

    def collect(self, buffer: int, step: int, stops: Stops) -> Rollouts | None:
        """Return the rollouts of a buffer by the weights after `step` steps; None on a stop.

        Raises Failure for what ends the run.
        """
        self._spent = {Phase.ROLLOUT: 0.0, Phase.SCORE: 0.0}
        rows = self._order.rows(buffer)
        own = self._order.slots(buffer)  # of the groups, those whose prompts are left out counted
        first = self._round(buffer, 0, own, rows, step, stops)
        if first is None:
            return None
        completions, scores = first
        found = self._advantages(completions, scores)
        original = Rollouts(rows, list(completions), scores, found, len(rows), self._spent)
        drawn = len(rows)
        for attempt in range(1, self._order.rounds + 1):
            slots = np.flatnonzero(~found.spread)
            if not len(slots):
                break
            others = self._order.replacements(buffer, attempt, len(slots), rows)
            if not len(others):
                continue
            slots = slots[: len(others)]
            again = self._round(buffer, attempt, own[slots], others, step, stops)
            if again is None:
                return None
            rows = rows.copy()
            rows[slots] = others
            places = self._places(slots)
            for place, completion in zip(places, again[0], strict=True):
                completions[int(place)] = completion
            scores = scores.put(places, again[1])
            found = self._advantages(completions, scores)
            drawn += len(slots)
        if drawn == len(original.rows):
            return original
        return Rollouts(rows, completions, scores, found, drawn, self._spent, original)

    def _round(
        self, buffer: int, attempt: int, slots: Indices, rows: Indices, step: int, stops: Stops
    ) -> tuple[list[Completion], Scores] | None:
        """Return completions and scores of one group per slot of the buffer."""
        completions = self._draw(buffer, attempt, slots, rows, step, stops)
        if completions is None or stops():
            return None
        scores = self._score(rows, completions, step, stops)
        return None if scores is None else (completions, scores)

    def _draw(
        self, buffer: int, attempt: int, slots: Indices, rows: Indices, step: int, stops: Stops
    ) -> list[Completion] | None:
        ranks = self._ranks
        requests = self._requests(buffer, attempt, slots, rows)
        done, total = 0, len(rows) * self._recipe.group_size

        def on_done(count: int) -> None:
            nonlocal done
            done += count
            self._reporter.reach(min(total, done * ranks.world))

        began = time.monotonic()
        with self._reporter.aside(Phase.ROLLOUT, total):
            by_rank = ranks.everywhere(lambda: self._engine.draw(requests, step, stops, on_done))
        self._spent[Phase.ROLLOUT] += time.monotonic() - began
        if any(drawn is None for drawn in by_rank):
            return None
        return [one for drawn in by_rank for group in drawn or [] for one in group]

    def _requests(self, buffer: int, attempt: int, slots: Indices, rows: Indices) -> list[Request]:
        """Return what this rank is to draw, a request for each prompt.

        Its key is of places, so that a prompt that is left out changes no other's completions.
        """
        size, requests = self._recipe.group_size, []
        share = self._share(len(rows)).tolist()
        for group, places in groupby(share, lambda place: place // size):
            row, samples = int(rows[group]), [place % size for place in places]
            key = (buffer, self._prompts.data.place(row), attempt, int(slots[group]))
            requests.append(Request(self._prompts.tokens(row), key, len(samples), first=samples[0]))
        return requests

    def _score(
        self, rows: Indices, completions: list[Completion], step: int, stops: Stops
    ) -> Scores | None:
        """Ask the rewards for the completions that this rank has drawn, gather the others'."""
        mine = self._share(len(rows))
        share = [completions[int(place)] for place in mine]
        of_rows = [int(rows[place // self._recipe.group_size]) for place in mine]
        asked = Share(
            decoded(self._prompts, of_rows, share, self._texts, step), mine, len(completions)
        )

        def tell(done: int, note: str | None) -> None:
            self._reporter.reach(done)
            self._reporter.noted("rewards", note)

        began = time.monotonic()
        with self._reporter.aside(Phase.SCORE, len(completions)):
            scores = scored(self._panel, asked, self._ranks, self._recipe.rewards, stops, tell)
        self._spent[Phase.SCORE] += time.monotonic() - began
        return scores

    def _share(self, groups: int) -> Indices:
        """Return which of so many groups' completions this rank draws and scores.

        Each rank has as many as the others, or one less, whatever groups they are of; they stand
        one after the other, so that few prompts are computed on two ranks.
        """
        places = np.arange(groups * self._recipe.group_size)
        return np.array_split(places, self._ranks.world)[self._ranks.rank]

    def _places(self, slots: Indices) -> Indices:
        """Return where the completions of some groups stand."""
        size = self._recipe.group_size
        return (slots[:, None] * size + np.arange(size)).reshape(-1)

    def _advantages(self, completions: list[Completion], scores: Scores) -> Advantages:
        lengths = np.array([len(one.tokens) for one in completions], dtype=np.int64)
        truncated = np.array([one.truncated for one in completions], dtype=np.bool_)
        return advantages(scores.values, lengths, truncated, self._recipe)
