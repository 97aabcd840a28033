"""The trainer in this process alone, brought to where its first step begins."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass

from finetune_contract.runconfig import RunConfig
from finetune_trainer.course.progress import Reporter
from finetune_trainer.fit.resolve import resolve
from finetune_trainer.lead import Start, begin, fetch
from finetune_trainer.methods.registry import method_of
from finetune_trainer.prepare import Prepared, prepare
from finetune_trainer.process.distributed import Ranks
from finetune_trainer.process.stopping import Stop
from finetune_trainer.run import ResolvedRun, Run
from finetune_trainer.step.engine import Engine
from finetune_trainer.step.feed import Feed
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
    """A process group of one, and what a run trains with in it."""

    run: ResolvedRun
    start: Start
    data: Prepared
    engine: Engine
    feed: Feed


def ready(config: RunConfig, stack: ExitStack) -> Ready:
    """Fetch, resolve, prepare and load; what the method opens is closed with the stack."""
    [environment] = rank_environments()
    os.environ.update(environment)
    ranks, reporter = Ranks.meet(), Reporter()
    ranks.join()
    run = Run(config, ranks, reporter, Stop(config.layout.grace_seconds, leave=lambda: None))
    method = method_of(config.recipe.method)
    stack.enter_context(method.companion(config, 0))
    learning = stack.enter_context(method.opened(run))
    start = begin(config, reporter, learning.identities)
    files = fetch(config, start.model, reporter, weights=False)
    resolved = resolve(run, start.model, files, learning.wish)
    data = prepare(run, method.form(config.recipe), files, start.files)
    engine, model = load(resolved, start.model, learning.objective)
    feed = learning.feed(resolved, engine, model, data.train, files)
    return Ready(resolved, start, data, engine, feed)
