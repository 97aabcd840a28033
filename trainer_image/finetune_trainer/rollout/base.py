"""What is asked of a rollout engine, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class Request:
    """A prompt of which completions are to be drawn: all of its group, or some of them.

    With the training's seed and a sample's index, `key` seeds the sampling noise: requests of equal
    key and prompt get equal completions, so it must tell apart whatever is to be drawn afresh.
    """

    prompt: npt.NDArray[np.int32]  # token ids
    key: tuple[int, ...]  # of numbers from 0 below 2^32
    samples: int  # completions wanted
    first: int = 0  # index in the group of the first of them


@dataclass(frozen=True, eq=False)
class Completion:
    """A completion without padding; it ends with the stop token if one was drawn."""

    tokens: npt.NDArray[np.int32]  # at least one
    truncated: bool  # cut at max_tokens


class RolloutEngine(Protocol):
    """Draws completions with the model as it stands."""

    def draw(
        self,
        requests: Sequence[Request],
        step: int,
        stops: Callable[[], bool],
        on_done: Callable[[int], None],
    ) -> list[list[Completion]] | None:
        """Return each request's completions, in order; None where a stop came.

        All ranks must call it, each with its own requests, of which there may be none. `step` is
        that of the weights: what has drawn once at a step may keep what it prepared for it.
        `stops` answers all ranks alike and is asked where all are in lockstep; `on_done` is told
        how many more of this rank's completions are drawn. Raises Failure(RolloutUnavailable).
        """
        ...
