"""One run on one screen: start, check the data, load, train, publish."""

from __future__ import annotations

import logging
import time
from typing import Any

import torch

from finetune_contract.artifact import TrainingSummary
from finetune_contract.progress import Phase
from finetune_contract.result import PublishedArtifact
from finetune_contract.runconfig import RunConfig
from finetune_trainer.architectures import module_names
from finetune_trainer.batch import step_batch
from finetune_trainer.data.batches import BatchPlan
from finetune_trainer.data.dataset import Dataset
from finetune_trainer.distributed import Ranks
from finetune_trainer.engine import Engine, prepare_deepspeed, sharded_loading
from finetune_trainer.lead import Lead, fetch
from finetune_trainer.lora import adapt
from finetune_trainer.model import load_model, read_config
from finetune_trainer.progress import Reporter
from finetune_trainer.schedule import learning_rate
from finetune_trainer.sources import ModelSource

log = logging.getLogger(__name__)


def train_and_publish(config: RunConfig, ranks: Ranks, reporter: Reporter) -> PublishedArtifact:
    """Return the published artifact, the same on every rank."""
    lead = Lead(config, reporter)
    start = ranks.lead(lead.start)
    if start.finished is not None:
        log.info("latest.json names an artifact of the same provenance: nothing to train")
        return start.finished
    data = ranks.lead(lead.read_data)
    engine, model = load(config, start.model, ranks, reporter)
    summary = train(config, engine, data, ranks, reporter)
    with engine.gathered():
        return ranks.lead(lambda: lead.publish(model, summary))


def load(
    config: RunConfig, source: ModelSource, ranks: Ranks, reporter: Reporter
) -> tuple[Engine, Any]:
    """Return the engine and the PEFT model in it."""
    recipe = config.recipe
    directory = fetch(config, source, reporter, weights=True)
    reporter.begin(Phase.LOAD)
    prepare_deepspeed(ranks)
    with sharded_loading(config):
        base = load_model(directory, recipe.training.precision)
        modules = module_names(read_config(directory), recipe.lora.targets)
        model = adapt(base, recipe.lora, modules, recipe.training.seed)
        engine = Engine(model, config, ranks)
    torch.manual_seed(recipe.training.seed + 1 + ranks.rank)  # dropout differs from rank to rank
    return engine, model


def train(
    config: RunConfig, engine: Engine, data: Dataset, ranks: Ranks, reporter: Reporter
) -> TrainingSummary:
    """Do every optimizer step of the recipe."""
    recipe = config.recipe.training
    plan = BatchPlan.of(recipe, len(data))
    reporter.begin(Phase.TRAIN, plan.steps)
    log.info("starts at step 0 of %d", plan.steps)
    learned, loss = 0, 0.0
    for step in range(plan.steps):
        started = time.monotonic()
        batch = step_batch(plan, step, data, config, ranks.rank, ranks.device)
        rate = learning_rate(recipe, step, plan.steps)
        outcome = engine.step(batch.micro_batches, batch.learned, rate)
        learned, loss = learned + batch.learned, outcome.loss
        seconds = time.monotonic() - started
        reporter.trained(outcome.loss, outcome.grad_norm, batch.tokens, seconds)
    return TrainingSummary(steps=plan.steps, supervised_tokens=learned, final_loss=loss)
