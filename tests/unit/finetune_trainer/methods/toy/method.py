"""A method of the tests': texts learned whole, their vowels twice as much."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from finetune_contract.checkpoint import TrainingState
from finetune_contract.recipe import DataFormat, Recipe
from finetune_trainer.batch.micro_batch import MicroBatch
from finetune_trainer.data.check import Reader
from finetune_trainer.data.dataset import Dataset
from finetune_trainer.data.encode import EncodedRow
from finetune_trainer.data.encoding import Form
from finetune_trainer.data.faults import Kind, RowError
from finetune_trainer.data.rows import Row, TextPair
from finetune_trainer.data.template import Tokenizer
from finetune_trainer.methods.base import Learning, Method
from finetune_trainer.methods.sft.feed import SupervisedFeed
from finetune_trainer.run import ResolvedRun, Run
from finetune_trainer.step.engine import Engine, StepOutcome
from finetune_trainer.step.feed import Feed, StepBatch

VOWELS = torch.tensor([3 + ord(vowel) - ord("!") for vowel in "aeiou"])  # byte tokens


class TextEncoder:
    """Encodes a text; all of it but its first token is learned."""

    def __init__(self, tokenizer: Tokenizer, longest: int, vocabulary: int | None) -> None:
        self._tokenizer = tokenizer

    def encode(self, row: Row) -> EncodedRow:
        assert isinstance(row, TextPair)
        ids = np.array(self._tokenizer(row.completion)["input_ids"], dtype=np.int32)
        return EncodedRow(ids, np.arange(len(ids)) > 0)


def text_reader(data_format: DataFormat) -> Reader:
    def read(value: dict[str, Any]) -> Row:
        if "text" not in value:
            raise RowError(Kind.MISSING_FIELD, "has no 'text'")
        return TextPair("", value["text"])

    return read


class Toy(Method):
    def form(self, recipe: Recipe) -> Form:
        return Form(recipe.training.sequence_length, ("toy",), text_reader, TextEncoder)

    def curves(self, recipe: Recipe) -> dict[str, str]:
        return {"share of vowels": "toy/vowels"}

    def opened(self, run: Run) -> AbstractContextManager[Learning]:
        return nullcontext(ToyLearning())


class ToyObjective:
    temperature = 1.0
    stats: tuple[str, ...] = ("vowels",)
    entropy = False

    def __call__(self, log_probs: Tensor, batch: MicroBatch) -> tuple[Tensor, Tensor]:
        return -(batch.weights * log_probs).sum(), (batch.weights == 2).float().sum()[None]


class ToyFeed(SupervisedFeed):
    def __init__(self, run: ResolvedRun, data: Dataset) -> None:
        super().__init__(run, data)
        self._ranks = run.ranks
        self._learned = 0

    def batch(self, state: TrainingState, stops: Callable[[], bool]) -> StepBatch:
        plain = super().batch(state, stops)
        self._learned = plain.learned
        weighted = tuple(
            replace(one, weights=one.weights * (1 + torch.isin(one.targets, VOWELS)))
            for one in plain.micro_batches
        )
        total = self._ranks.sum(sum(float(one.weights.sum()) for one in weighted))
        return replace(plain, micro_batches=weighted, normaliser=total)

    def metrics(self, outcome: StepOutcome) -> dict[str, float]:
        return {"toy/vowels": outcome.stats["vowels"] / self._learned}


class ToyLearning(Learning):
    def __init__(self) -> None:
        self.objective = ToyObjective()

    def feed(
        self, run: ResolvedRun, engine: Engine, model: Any, data: Dataset, directory: Path
    ) -> Feed:
        return ToyFeed(run, data)


METHOD = Toy()
