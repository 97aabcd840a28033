"""Models of which only small files and headers are there, resolved."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from finetune_contract.recipe import ModelRecipe
from finetune_contract.resolved import Resolved
from finetune_contract.runconfig import RunConfig
from finetune_trainer.fit.fitting import Room, Wish
from finetune_trainer.fit.resolve import resolve
from finetune_trainer.methods.grpo.learning import GrpoLearning
from finetune_trainer.store.sources import resolve_model
from support.models.tiny_models import write_tiny
from support.trainer.parts import run_of
from support.trainer.runs import run_config

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
MIB = 2**20


class Nodes:
    """Two ranks, each on a node of its own, one after the other; they may have other rooms."""

    device = CPU

    def __init__(self, rooms: Sequence[Room] = ()) -> None:
        self._rooms = list(rooms)

    def everywhere(self, work: Callable[[], Any]) -> list[Any]:
        """Return what both make."""
        return self._rooms or [work(), work()]

    def lead(self, work: Callable[[], Any]) -> Any:
        """Return what rank 0 makes."""
        return work()


def settle(
    directory: Path, name: str = "llama", nodes: Nodes | None = None, **options: Any
) -> Resolved:
    """Return how Auto is resolved for a run over a model of which no weights are there."""
    model = directory / "model"
    if not model.exists():
        write_tiny(name, model)
        _cut_weights(model)
    return settle_config(run_config(directory, **options), model, nodes=nodes)


def settle_config(
    config: RunConfig,
    model: Path,
    asks: Callable[[Wish], Wish] = lambda wish: wish,
    nodes: Nodes | None = None,
) -> Resolved:
    """Return how Auto is resolved for a run over a model's directory."""
    source = resolve_model(ModelRecipe(uri=model.as_uri()), None)
    return resolve(run_of(config, nodes or Nodes()), source, model, asks).resolved


def write_untriable(directory: Path) -> None:
    """Write a model outside the table, of whose class no small one can be made: too wide heads."""
    write_tiny("olmo2", directory)
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "head_dim": 10**5}))


def grpo_wish(config: RunConfig, held: int = 0) -> Callable[[Wish], Wish]:
    """Return what GRPO asks for beside reward models of so many bytes."""
    panel: Any = None
    return GrpoLearning(run_of(config, Nodes()), panel, (), held).wish


def _cut_weights(directory: Path) -> None:
    """Leave of each weights file its header alone."""
    for path in directory.glob("*.safetensors"):
        data = path.read_bytes()
        path.write_bytes(data[: 8 + int.from_bytes(data[:8], "little")])
