"""What the trainer's tests share."""

from __future__ import annotations

import importlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from finetune_trainer.process.distributed import Ranks
from support.models.tiny_llama import sums, write_model, write_rows
from support.trainer.fork_server import ForkServer
from support.trainer.runs import rank_environments


@pytest.fixture(scope="session")
def server() -> Iterator[ForkServer]:
    """Start ranks from one process that has imported everything."""
    server = ForkServer()
    yield server
    server.close()


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with a tiny model and rows that it can be trained on."""
    directory = tmp_path_factory.mktemp("inputs")
    write_model(directory / "model")
    write_rows(directory / "train.jsonl", sums(16))
    return directory


@pytest.fixture(scope="module")
def model(inputs: Path) -> Path:
    """Return the directory of a tiny model."""
    return inputs / "model"


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Return a file of rows that the model can be trained on."""
    return write_rows(tmp_path / "train.jsonl", sums(16))


@pytest.fixture(scope="module")
def alone() -> Iterator[Ranks]:
    """A group of this process alone."""
    [environment] = rank_environments()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        # zero.Init puts another there for as long as the process lives.
        patch.setattr(torch.nn.functional, "linear", torch.nn.functional.linear)
        ranks = Ranks.meet()
        ranks.join()
        yield ranks
        dist.destroy_process_group()
        if groups := sys.modules.get("deepspeed.utils.groups"):
            importlib.reload(groups)  # DeepSpeed keeps what it has made of the group


@pytest.fixture
def scratch_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let temporary files be nowhere but where the product says: pods have a read-only root."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "read-only"))
