"""The trainer in this process alone, brought to where its first step begins."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_contract.resolved import MemoryEstimate
from finetune_contract.runconfig import RunConfig
from finetune_trainer.course.progress import Reporter
from finetune_trainer.fit.resolve import resolve
from finetune_trainer.lead import Lead, fetch
from finetune_trainer.prepare import Prepared, prepare
from finetune_trainer.process.distributed import Ranks
from finetune_trainer.step.engine import Engine
from finetune_trainer.train import load
from support.trainer.runs import rank_environments

LLAMA_28M = {
    "vocab_size": 8192,
    "hidden_size": 512,
    "intermediate_size": 1408,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
}


@dataclass(frozen=True)
class Ready:
    """A process group of one, the resolved RunConfig, and what it trains with."""

    ranks: Ranks
    config: RunConfig
    memory: MemoryEstimate
    data: Prepared
    engine: Engine
    model: Any
    files: Path  # the model's small ones


def ready(config: RunConfig) -> Ready:
    """Fetch, resolve, prepare and load."""
    [environment] = rank_environments()
    os.environ.update(environment)
    ranks, reporter = Ranks.meet(), Reporter()
    ranks.join()
    start = Lead(config, reporter).start()
    files = fetch(config, start.model, reporter, weights=False)
    resolved, plan = resolve(config, start.model, files, ranks)
    reporter.planned(plan)
    data = prepare(resolved, start.files, files, ranks, reporter)
    engine, model = load(resolved, start.model, ranks, reporter)
    return Ready(ranks, resolved, plan.memory, data, engine, model, files)
