"""One run on one screen: start, check the data, load, train, publish."""

from __future__ import annotations

import logging
from typing import Any

from finetune_contract.artifact import TrainingSummary
from finetune_contract.progress import Phase
from finetune_contract.result import PublishedArtifact
from finetune_contract.runconfig import RunConfig
from finetune_trainer.distributed import Ranks
from finetune_trainer.engine import Engine
from finetune_trainer.initial import fetch_initial
from finetune_trainer.lead import Lead, fetch
from finetune_trainer.load import load_adapted, placement_on
from finetune_trainer.loop import Loop
from finetune_trainer.prepare import Prepared, prepare
from finetune_trainer.progress import Reporter
from finetune_trainer.resolve import resolve
from finetune_trainer.sharding import prepare_deepspeed, sharded_loading, zero_stage
from finetune_trainer.sources import ModelSource
from finetune_trainer.stopping import Stop
from finetune_trainer.supervised import SupervisedFeed

log = logging.getLogger(__name__)


def train_and_publish(
    config: RunConfig, ranks: Ranks, reporter: Reporter, stop: Stop
) -> PublishedArtifact:
    """Return the published artifact, the same on every rank."""
    lead = Lead(config, reporter)
    start = ranks.lead(lead.start)
    if start.finished is not None:
        log.info("latest.json names an artifact of the same provenance: nothing to train")
        return start.finished
    directory = ranks.together(lambda: fetch(config, start.model, reporter, weights=False))
    config, plan = resolve(config, start.model, directory, ranks)
    reporter.planned(plan)
    data = prepare(config, start.files, directory, ranks, reporter, start.eval_files)
    ranks.lead(lead.claim)  # once the inputs are good: a run that has the output ends by it
    engine, model = load(config, start.model, ranks, reporter)
    with lead.telling():
        summary = train(config, engine, data, lead, ranks, reporter, stop)
        with engine.gathered():
            return ranks.lead(lambda: lead.publish(model, summary, data.skipped_file))


def load(
    config: RunConfig, source: ModelSource, ranks: Ranks, reporter: Reporter
) -> tuple[Engine, Any]:
    """Return the engine and the PEFT model in it."""
    # Together: a node may have in its cache what another downloads for longer than NCCL waits.
    directory = ranks.together(lambda: fetch(config, source, reporter, weights=True))
    initial = ranks.together(lambda: fetch_initial(config, source.initial))
    reporter.begin(Phase.LOAD)
    prepare_deepspeed(ranks)
    with sharded_loading(config):
        placement = placement_on(ranks.device, zero_stage(config.layout))
        adapted = load_adapted(config.recipe, directory, initial, placement)
        reporter.adapted(adapted.coverage)
        ranks.wait()  # disks differ, and what follows broadcasts over NCCL
        engine = Engine(adapted.model, config, ranks)
    return engine, adapted.model


def train(
    config: RunConfig,
    engine: Engine,
    data: Prepared,
    lead: Lead,
    ranks: Ranks,
    reporter: Reporter,
    stop: Stop,
) -> TrainingSummary:
    """Do the recipe's steps that no checkpoint has done; the engine then holds what to publish."""
    stop.postpone()
    feed = SupervisedFeed(config, data.train, ranks)
    return Loop(config, engine, data, feed, lead, ranks, reporter, stop).run()
