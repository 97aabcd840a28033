"""What the rest of the trainer knows of a method. The defaults are those of learning from rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_contract.artifact import RewardIdentity
from finetune_contract.recipe import DataFormat, Recipe
from finetune_contract.runconfig import RunConfig

if TYPE_CHECKING:  # a pod's launcher and a laptop, which have no torch, ask a method too
    from finetune_trainer.data.check import Reader
    from finetune_trainer.data.dataset import Dataset
    from finetune_trainer.data.encoding import Form
    from finetune_trainer.fit.fitting import Wish
    from finetune_trainer.run import ResolvedRun, Run
    from finetune_trainer.step.engine import Engine
    from finetune_trainer.step.feed import Feed
    from finetune_trainer.step.objective import Objective


class Method(ABC):
    """A method before a run: `METHOD` of its package's module `method`, which imports no torch."""

    def companion(self, config: RunConfig, node: int) -> AbstractContextManager[None]:
        """Return what keeps a process running beside the ranks of a node, if one is needed."""
        return nullcontext()

    def reader(self, form: DataFormat, columns: Mapping[str, str] | None = None) -> Reader:
        """Return what reads the rows of a file where no job is known; it needs no numpy."""
        from finetune_trainer.data.reading.reader import RowReader

        return RowReader(form, columns)

    def plain_form(self, sequence_length: int, answer: int) -> Form:
        """Return the form of rows where no job is known, and `answer` tokens are to be drawn."""
        from finetune_trainer.data.encoding import Form

        return Form(sequence_length)

    def form(self, recipe: Recipe) -> Form:
        """Return how rows are read, encoded and kept."""
        form = self.plain_form(recipe.training.sequence_length, 0)
        return self.mapped(form, recipe.data.mapped)

    @staticmethod
    def mapped(form: Form, columns: Mapping[str, str]) -> Form:
        """Return a form of rows whose columns have names of their own."""
        if not columns:
            return form
        decides = (*form.decides, "columns", sorted(columns.items()))
        return replace(form, decides=decides, reader=partial(form.reader, columns=columns))

    def curves(self, recipe: Recipe) -> dict[str, str]:
        """Return what the report draws of the method's metrics: their names, by title."""
        return {}

    @abstractmethod
    def opened(self, run: Run) -> AbstractContextManager[Learning]:
        """Return the method at work in a run; all ranks enter and leave it together."""


class Learning(ABC):
    """A method at work in a run.

    `identities` tells what it was made from beyond the recipe, model and data.
    """

    objective: Objective
    identities: tuple[RewardIdentity, ...] = ()

    def wish(self, wish: Wish) -> Wish:
        """Return a job's wish with what the method asks of memory beside training on rows."""
        return wish

    @abstractmethod
    def feed(
        self, run: ResolvedRun, engine: Engine, model: Any, data: Dataset, directory: Path
    ) -> Feed:
        """Return the run's batches, before a checkpoint is restored.

        `model` is the PEFT model in `engine`, `directory` holds its tokenizer, and `data` are rows
        of the method's form.
        """
