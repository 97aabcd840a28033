"""One run on one screen: start, check the data, load, train, publish."""

from __future__ import annotations

import logging
import time
from typing import Any

import numpy as np
import torch

from finetune_contract.artifact import TrainingSummary
from finetune_contract.progress import Phase
from finetune_contract.result import PublishedArtifact
from finetune_contract.runconfig import RunConfig
from finetune_trainer.batch import step_batch
from finetune_trainer.data.batches import BatchPlan
from finetune_trainer.data.dataset import Dataset
from finetune_trainer.distributed import Ranks
from finetune_trainer.engine import Engine, prepare_deepspeed, sharded_loading
from finetune_trainer.lead import Lead, fetch
from finetune_trainer.load import load_adapted
from finetune_trainer.prepare import prepare
from finetune_trainer.progress import Reporter
from finetune_trainer.resolve import resolve
from finetune_trainer.schedule import learning_rate
from finetune_trainer.sources import ModelSource
from finetune_trainer.telemetry import StepRecord

log = logging.getLogger(__name__)


def train_and_publish(config: RunConfig, ranks: Ranks, reporter: Reporter) -> PublishedArtifact:
    """Return the published artifact, the same on every rank."""
    lead = Lead(config, reporter)
    start = ranks.lead(lead.start)
    if start.finished is not None:
        log.info("latest.json names an artifact of the same provenance: nothing to train")
        return start.finished
    directory = fetch(config, start.model, reporter, weights=False)
    config, plan = ranks.lead(lambda: resolve(config))
    reporter.planned(plan)
    data = prepare(config, start.files, directory, ranks, reporter)
    engine, model = load(config, start.model, ranks, reporter)
    summary = train(config, engine, data.train, ranks, reporter)
    with engine.gathered():
        return ranks.lead(lambda: lead.publish(model, summary))


def load(
    config: RunConfig, source: ModelSource, ranks: Ranks, reporter: Reporter
) -> tuple[Engine, Any]:
    """Return the engine and the PEFT model in it."""
    directory = fetch(config, source, reporter, weights=True)
    reporter.begin(Phase.LOAD)
    prepare_deepspeed(ranks)
    with sharded_loading(config):
        adapted = load_adapted(config.recipe, directory)
        reporter.adapted(adapted.coverage)
        engine = Engine(adapted.model, config, ranks)
    return engine, adapted.model


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
        seed_step(recipe.seed, step, ranks.rank)
        batch = step_batch(plan, step, data, config, ranks.rank, ranks.device)
        rate = learning_rate(recipe, step, plan.steps)
        outcome = engine.step(batch.micro_batches, batch.learned, rate, lambda: False)
        assert outcome is not None
        learned, loss = learned + batch.learned, outcome.loss
        reporter.trained(
            StepRecord(
                step=step + 1,
                loss=outcome.loss,
                grad_norm=outcome.grad_norm,
                learning_rate=rate,
                tokens=batch.tokens,
                supervised_tokens=batch.learned,
                seconds=time.monotonic() - started,
            )
        )
    return TrainingSummary(
        steps=plan.steps, supervised_tokens=learned, final_loss=loss, published_step=plan.steps
    )


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed dropout by step and rank: a run that goes on at any step draws what it would have."""
    torch.manual_seed(
        int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0])
    )
