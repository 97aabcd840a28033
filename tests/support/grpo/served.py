"""A stub of a server that draws, and a trainer's rollouts by it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune_contract.reasons import Reason
from finetune_trainer.course.progress import Reporter
from finetune_trainer.process.distributed import Ranks
from finetune_trainer.process.errors import Failure
from finetune_trainer.rollout.base import Completion, Request
from finetune_trainer.rollout.server import Limits
from support.grpo.draws import engine_of, rollout_config, rollouts
from support.models.tiny_llama import write_model
from support.services.completions import CompletionsServer, serving

MOST = 9
SAMPLING = {"maxTokens": MOST, "temperature": 0.7, "topP": 0.9, "topK": 5, "stop": ["END"]}
ASKED = [
    Request(np.array([3, 1, 4], np.int32), (0, 5, 0), 3),
    Request(np.array([1, 5], np.int32), (0, 6, 0), 2, first=4),
]

Loaded = tuple[Path, Ranks, Any, Any]  # directory, ranks, training engine, PEFT model


class Served:
    """A stub server and a training engine whose rollouts it draws; waits are short."""

    def __init__(self, directory: Path, ranks: Ranks, engine: Any, model: Any) -> None:
        self.server = CompletionsServer()
        self.directory, self.ranks, self.engine, self.model = directory, ranks, engine, model
        self.shared = directory / "shared"
        self.credentials: str | None = None
        self.reporter = Reporter()
        self.limits = Limits(pause=60.0, longest=0.01, poll=0.05)

    def rollouts(self, **options: Any) -> Any:
        """Return a rollout engine that asks the server; `options` are of `rollout_config`."""
        config = rollout_config(
            self.directory,
            sampling=SAMPLING,
            rollout={
                "engine": "OpenAI",
                "uri": self.server.url + "/",
                "adapterDirectory": str(self.shared),
            },
            credentials={"rollout": self.credentials} if self.credentials else {},
            **options,
        )
        made = rollouts(config, self.engine, self.model, self.ranks, reporter=self.reporter)
        made.limits = self.limits
        return made


@contextmanager
def loaded_in(directory: Path, ranks: Ranks) -> Iterator[Loaded]:
    """Yield a training engine of a tiny model, and what belongs to it."""
    write_model(directory / "model")
    with engine_of(rollout_config(directory), ranks) as (engine, model):
        yield directory, ranks, engine, model


@contextmanager
def served(loaded: Loaded, shared: Path) -> Iterator[Served]:
    """Serve."""
    made = Served(*loaded)
    made.shared = shared
    with serving(made.server):
        yield made


def draw(rollouts: Any, step: int = 0) -> list[list[Completion]]:
    """Return the completions of all that is asked."""
    found = rollouts.draw(ASKED, step, lambda: False, lambda _: None)
    assert found is not None
    return found  # type: ignore[no-any-return]


def failure(rollouts: Any) -> Failure:
    """Return what drawing ends with."""
    with pytest.raises(Failure) as caught:
        draw(rollouts)
    assert caught.value.reason is Reason.ROLLOUT_UNAVAILABLE
    return caught.value


def told_until_mended(
    setup: Served, rollouts: Any, mend: Callable[[], Any] = lambda: None, *, stop: bool = False
) -> list[str]:
    """Draw; mend, or stop, once Progress tells of a wait. Return what it told."""
    told: list[str] = []

    def stops() -> bool:
        if (note := setup.reporter.latest.note) is not None:
            told.append(note)
            mend()
        return stop and bool(told)

    found = rollouts.draw(ASKED, 0, stops, lambda _: None)
    assert (found is None) == stop
    return told
