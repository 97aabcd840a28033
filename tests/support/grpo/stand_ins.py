"""Stand-ins for what draws and what scores, and rollouts over them."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from finetune_contract.runconfig import RunConfig
from finetune_rewards.scores.samples import Answer, Item, Samples, text_of
from finetune_trainer.course.progress import Reporter
from finetune_trainer.data.dataset import Dataset, Source
from finetune_trainer.methods.grpo.metrics import buffer_metrics
from finetune_trainer.methods.grpo.prompt_order import PromptOrder
from finetune_trainer.methods.grpo.prompts.dataset import Prompts
from finetune_trainer.methods.grpo.rewards.texts import Texts
from finetune_trainer.methods.grpo.rollouts import Collector, Rollouts
from finetune_trainer.process.distributed import Ranks
from finetune_trainer.rollout.base import Completion, Request
from support.grpo.configs import grpo_config
from support.trainer.parts import run_of

Draw = Callable[[Request, int], Completion]


@dataclass
class FunctionEngine:
    """Draws what a function says of a request and a sample's index in the group.

    Notes what it was asked.
    """

    draws: Draw
    asked: list[tuple[int, ...]] = field(default_factory=list)  # keys
    wanted: list[range] = field(default_factory=list)  # samples of each

    def draw(
        self,
        requests: Sequence[Request],
        step: int,
        stops: Callable[[], bool],
        on_done: Callable[[int], None],
    ) -> list[list[Completion]] | None:
        """Return the completions of each request; None where a stop came."""
        if stops():
            return None
        drawn = []
        for request in requests:
            samples = range(request.first, request.first + request.samples)
            self.asked.append(request.key)
            self.wanted.append(samples)
            drawn.append([self.draws(request, sample) for sample in samples])
            on_done(request.samples)
        return drawn


@dataclass
class FunctionPanel:
    """Scores each completion's text by functions, one per reward; notes the samples."""

    scorers: dict[str, Callable[[str], Item]]
    asked: list[Samples] = field(default_factory=list)

    waits: int = 0  # how often a batch is busy before its answers are there
    waits_for: str | None = None  # meanwhile
    given_up: int = 0  # batches that were left before

    @contextmanager
    def scoring(self, samples: Samples) -> Iterator[FunctionScoring]:
        """Yield the batch as it is being scored."""
        self.asked.append(samples)
        batch = FunctionScoring(self.scorers, samples, self.waits, self.waits_for)
        yield batch
        self.given_up += batch.waits > 0


@dataclass
class FunctionScoring:
    """A batch of FunctionPanel's."""

    scorers: dict[str, Callable[[str], Item]]
    samples: Samples
    waits: int
    waits_for: str | None
    answers: dict[str, Answer] = field(default_factory=dict)
    done: int = 0

    def busy(self) -> bool:
        """Score at last; until then, one completion more is done each time."""
        if self.waits:
            self.waits -= 1
            self.done += 1
            return True
        self.waits_for = None
        self.done = len(self.samples)
        self.answers = {
            name: Answer([scorer(text_of(one)) for one in self.samples.completions], 0.5)
            for name, scorer in self.scorers.items()
        }
        return False


class Letters:
    """A tokenizer: token 65 is A, 0 pads."""

    pad_token_id = 0

    def decode(self, tokens: list[int], *, skip_special_tokens: bool) -> str:
        """Return the text of tokens."""
        assert not skip_special_tokens
        return "".join(map(chr, tokens))


LETTERS = Texts(Letters(), ends=())


def completion(text: str, *, truncated: bool = False) -> Completion:
    """Return a completion of one token per letter."""
    return Completion(np.array([ord(letter) for letter in text], dtype=np.int32), truncated)


def numbered_prompts(count: int, left_out: Container[int] = ()) -> Prompts:
    """Return prompts of one token, their place plus 1; columns name the place."""
    kept = [row for row in range(count) if row not in left_out]
    places = np.array(kept)
    data = Dataset(
        tokens=(places + 1).astype(np.int32),
        learned=np.zeros(len(kept), dtype=np.bool_),
        offsets=np.arange(len(kept) + 1),
        lines=places + 1,
        places=places,
        sources=(Source(len(kept), left_out=count - len(kept)),),
    )
    documents = [f'{{"prompt":"{row}","columns":{{"row":{row}}}}}'.encode() for row in kept]
    offsets = np.cumsum([0, *map(len, documents)])
    return Prompts(data, ("row",), np.frombuffer(b"".join(documents), dtype=np.uint8), offsets)


ROWS = 64
ONE = {"name": "a", "regex": {"pattern": "A"}}
TWO = {"name": "b", "regex": {"pattern": "B"}}


def rolled_config(directory: Any, *, training: Any = None, **grpo: Any) -> RunConfig:
    """Return a RunConfig of one reward unless `grpo` has others."""
    return grpo_config(directory, grpo={"rewards": [ONE], **grpo}, training=training)


def halves(request: Request, sample: int) -> Completion:
    """Draw unequal completions for even rows, equal ones for odd rows."""
    row = request.key[1]
    return completion("A" if row % 2 or sample % 2 else "x")


def is_a(text: str) -> Item:
    """Score 1 for A, else 0."""
    return Item(score=float(text == "A"))


class Rolled:
    """A collector over stand-ins."""

    def __init__(
        self,
        run: RunConfig,
        ranks: Ranks,
        draws: Any = halves,
        scorers: Any = None,
        left_out: Container[int] = (),
    ) -> None:
        assert run.recipe.grpo is not None
        self.recipe = run.recipe.grpo
        self.prompts = numbered_prompts(ROWS, left_out)
        self.order = PromptOrder.of(run.recipe, self.prompts.data)
        self.engine = FunctionEngine(draws)
        self.panel = FunctionPanel(scorers or {"a": is_a})
        self.reporter = Reporter()
        panel: Any = self.panel
        self.collector = Collector(
            run_of(run, ranks, self.reporter),
            self.order,
            self.prompts,
            LETTERS,
            self.engine,
            panel,
        )

    def collect(self, buffer: int = 0) -> Rollouts:
        """Return a buffer's rollouts after three steps."""
        found = self.collector.collect(buffer, 3, lambda: False)
        assert found is not None
        return found

    def metrics(self, buffer: int = 0) -> dict[str, float]:
        """Return the metrics of a buffer's rollouts."""
        return buffer_metrics(self.collect(buffer), self.recipe.rewards)
