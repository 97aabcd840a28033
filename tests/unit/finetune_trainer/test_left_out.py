"""Rows that are left out: what a run learns from the others, on any layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune_contract.recipe import BadRows, TrainingRecipe
from finetune_contract.runconfig import RunConfig
from finetune_trainer.batch.batches import BatchOrder
from finetune_trainer.data.dataset import Source
from support.models.tiny_llama import sums, write_rows
from support.trainer.fork_server import ForkServer
from support.trainer.runs import Trained, run_config, train_group

ROWS, SIZE, EMPTY_STEP, SHORT_STEP = 16, 4, 1, 2
TRAINING = {
    "globalBatchSize": SIZE,
    "seed": 5,
    "optimizer": "SGD",
    "schedule": "Constant",
    "warmupRatio": 0,
    "learningRate": 0.1,
    "weightDecay": 0.1,
}


def left_out() -> list[int]:
    """Return all rows of a step, and one of the next."""
    recipe = TrainingRecipe(global_batch_size=SIZE, seed=TRAINING["seed"])
    order = BatchOrder((Source(ROWS),), SIZE, recipe.seed, ROWS // SIZE, ROWS)
    return [*map(int, order.batch(EMPTY_STEP)), int(order.batch(SHORT_STEP)[0])]


def config_of(inputs: Path, directory: Path, data: Path, **options: Any) -> RunConfig:
    config = run_config(directory, model=inputs / "model", data=data, training=TRAINING, **options)
    skipping = config.recipe.data.model_copy(update={"on_bad_row": BadRows.SKIP})
    recipe = config.recipe.model_copy(update={"data": skipping})
    return config.model_copy(update={"recipe": recipe})


@pytest.fixture(scope="module")
def trained(
    server: ForkServer, inputs: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Trained]:
    directory = tmp_path_factory.mktemp("left-out")
    rows: list[Any] = sums(ROWS)
    whole = write_rows(directory / "whole.jsonl", rows)
    for at in left_out():
        rows[at] = None
    sparse = write_rows(directory / "sparse.jsonl", rows)
    one = {
        "whole": config_of(inputs, directory / "a", whole, microBatchSize=4),
        "sparse": config_of(inputs, directory / "b", sparse, microBatchSize=4),
    }
    two = config_of(
        inputs, directory / "c", sparse, processesPerWorker=2, zeroStage=2, microBatchSize=1
    )
    return {
        **train_group(server, 1, one, directory / "one"),
        **train_group(server, 2, {"sparse, ZeRO-2": two}, directory / "two"),
    }


def test_up_to_the_first_that_is_left_out_nothing_changes(trained: dict[str, Trained]) -> None:
    whole, sparse = trained["whole"], trained["sparse"]
    assert len(whole.losses) == ROWS // SIZE
    assert whole.losses[:EMPTY_STEP] == sparse.losses[:EMPTY_STEP]
    assert whole.losses[SHORT_STEP:] != sparse.losses[SHORT_STEP - 1 :]


def test_a_step_without_rows_counts_and_is_not_told_of(trained: dict[str, Trained]) -> None:
    sparse = trained["sparse"]
    assert len(sparse.losses) == ROWS // SIZE - 1
    [manifest] = sparse.directory.parents[1].glob("b/out/runs/*/*/*/artifact/manifest.json")
    summary = json.loads(manifest.read_text())["training"]
    assert (summary["steps"], summary["skippedRows"]) == (ROWS // SIZE, len(left_out()))


def test_layout_does_not_change_the_numbers(trained: dict[str, Trained]) -> None:
    one, two = trained["sparse"], trained["sparse, ZeRO-2"]
    np.testing.assert_allclose(two.losses, one.losses, rtol=1e-5)
    for name, tensor in one.tensors("adapter").items():
        np.testing.assert_allclose(two.tensors("adapter")[name], tensor, atol=1e-5)
