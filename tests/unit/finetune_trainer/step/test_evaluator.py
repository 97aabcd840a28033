"""When is evaluated, what counts as a gain, and what a rank adds to the sum."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from finetune_contract.checkpoint import Evaluation, TrainingState
from finetune_contract.runconfig import RunConfig
from finetune_trainer.batch.micro_batch import MicroBatch
from finetune_trainer.data.dataset import Dataset, Source
from finetune_trainer.step.evaluate import Evaluator
from support.trainer.parts import resolved_run
from support.trainer.runs import run_config

ROWS, LENGTH = 5, 4
BEFORE = TrainingState(step=0, supervised_tokens=0, loss=1.0)


class FakeEngine:
    """Answers with losses told before, and counts the rows that it is given."""

    def __init__(self, *losses: float) -> None:
        self.parameters = {"a": torch.zeros(1)}
        self.given: list[int] = []
        self._losses = list(losses)

    def loss_sum(self, batches: list[MicroBatch]) -> float:
        [batch] = batches
        self.given.append(int(batch.weights.sum()) // (LENGTH - 1))
        return self._losses[0] if len(self._losses) == 1 else self._losses.pop(0)

    @contextmanager
    def gathered(self) -> Iterator[None]:
        yield


def data() -> Dataset:
    learned = np.tile(np.arange(LENGTH) > 0, ROWS)
    offsets = np.arange(0, LENGTH * ROWS + 1, LENGTH, dtype=np.int64)
    tokens = np.arange(LENGTH * ROWS, dtype=np.int32)
    return Dataset(
        tokens, learned, offsets, np.arange(1, ROWS + 1), np.arange(ROWS), (Source(ROWS),)
    )


def config(directory: Path, world: int = 1, size: int = ROWS, **recipe: Any) -> RunConfig:
    training = {"globalBatchSize": world * size}
    plain = run_config(directory, training=training, processesPerWorker=world, microBatchSize=size)
    document = plain.model_dump(mode="json", by_alias=True)
    document["recipe"]["data"]["eval"] = [{"uri": "file:///eval.jsonl"}]
    document["recipe"]["eval"] = {"everySteps": 2, **recipe}
    return RunConfig.model_validate(document)


def evaluator(made: RunConfig, engine: FakeEngine, rank: int = 0) -> Evaluator:
    ranks: Any = SimpleNamespace(
        rank=rank,
        world=made.layout.world_size,
        is_lead=rank == 0,
        device=torch.device("cpu"),
        sum=lambda value: value,
    )
    given: Any = engine
    return Evaluator(resolved_run(made, ranks), given, data())


def at(step: int) -> TrainingState:
    return BEFORE.model_copy(update={"step": step})


def test_an_evaluation_comes_every_so_many_steps_and_at_the_end(tmp_path: Path) -> None:
    found = evaluator(config(tmp_path), FakeEngine(0))
    assert [step for step in range(8) if found.due(at(step), 7)] == [2, 4, 6, 7]
    done = at(4).model_copy(update={"evaluation": Evaluation(step=4, loss=1.0)})
    assert not found.due(done, 7)
    assert found.due(done.model_copy(update={"step": 6}), 7)


def test_only_a_lower_loss_is_a_gain_and_begins_the_count_again(tmp_path: Path) -> None:
    losses = [3.0, 3.0, 3.5, 2.0, 2.0]
    found = evaluator(config(tmp_path, patience=2, publish="Best"), FakeEngine(*losses))
    state, seen = BEFORE, []
    for number in range(1, 6):
        found.best = {}
        state = found.evaluate(state.model_copy(update={"step": 2 * number}), lambda: False)
        assert state.best is not None
        kept = found.best.keys() == {"a"}
        seen.append((state.evaluations_without_gain, state.best.step, kept, found.gave_up(state)))
    assert seen == [
        (0, 2, True, False),
        (1, 2, False, False),
        (2, 2, False, True),
        (0, 8, True, False),
        (1, 8, False, False),
    ]


def test_the_last_adapter_is_not_kept_as_the_best(tmp_path: Path) -> None:
    found = evaluator(config(tmp_path), FakeEngine(1.0))
    assert not found.gave_up(found.evaluate(at(2), lambda: False))
    assert found.best == {}


@pytest.mark.parametrize(("rank", "given"), [(0, [2, 1]), (1, [2, 0])])
def test_ranks_come_with_equally_many_micro_batches(
    tmp_path: Path, rank: int, given: list[int]
) -> None:
    engine = FakeEngine(30.0)
    found = evaluator(config(tmp_path, world=2, size=2), engine, rank)
    state = found.evaluate(at(2), lambda: False)
    assert engine.given == given
    assert state.evaluation == Evaluation(step=2, loss=60 / (ROWS * (LENGTH - 1)))


def test_a_stop_leaves_the_state_as_it_was(tmp_path: Path) -> None:
    asked: list[bool] = []

    def stops() -> bool:
        asked.append(True)
        return len(asked) == 2

    engine = FakeEngine(1.0)
    found = evaluator(config(tmp_path, size=1, publish="Best"), engine)
    assert found.evaluate(at(2), stops) is not None
    assert (found.evaluate(at(2), lambda: True), found.best) == (at(2), {})
    assert engine.given == [1]
