"""One run on one screen: start, check the data, load, train, publish."""

from __future__ import annotations

import logging
from typing import Any

from finetune_contract.artifact import TrainingSummary
from finetune_contract.progress import Phase
from finetune_contract.result import PublishedArtifact
from finetune_trainer.adapter.initial import fetch_initial
from finetune_trainer.adapter.load import load_adapted, placement_on
from finetune_trainer.course.telemetry import Telemetry
from finetune_trainer.fit.resolve import resolve
from finetune_trainer.lead import Lead, begin, fetch, telling, tokenizer_directory
from finetune_trainer.loop import Loop
from finetune_trainer.methods.registry import method_of
from finetune_trainer.model.advice import advice
from finetune_trainer.prepare import Prepared, prepare
from finetune_trainer.process.distributed import Led
from finetune_trainer.run import ResolvedRun, Run
from finetune_trainer.step.engine import Engine
from finetune_trainer.step.feed import Feed
from finetune_trainer.step.objective import Objective
from finetune_trainer.step.sharding import prepare_deepspeed, sharded_loading
from finetune_trainer.store.sources import ModelSource

log = logging.getLogger(__name__)


def train_and_publish(run: Run) -> PublishedArtifact:
    """Return the published artifact, the same on every rank."""
    config, ranks, reporter = run.config, run.ranks, run.reporter
    method = method_of(config.recipe.method)
    with method.opened(run) as learning:
        start = ranks.lead(lambda: begin(config, reporter, learning.identities))
        if start.finished is not None:
            log.info("latest.json names an artifact of the same provenance: nothing to train")
            return start.finished
        directory = ranks.together(lambda: fetch(config, start.model, reporter, weights=False))
        resolved = resolve(run, start.model, directory, learning.wish)
        form = method.form(config.recipe)
        words = ranks.together(lambda: tokenizer_directory(config, start.model, directory))
        data = prepare(run, form, words, start.files, start.eval_files)
        # Once the inputs are good: a run that has the output ends by it.
        curves = method.curves(config.recipe)
        lead = ranks.hold(lambda: Lead(config, reporter, start, Telemetry(config, curves)))
        engine, model = load(resolved, start.model, learning.objective)
        feed = learning.feed(resolved, engine, model, data.train, words)
        with telling(lead):
            summary = train(resolved, engine, data, feed, lead)
            with engine.gathered():
                return lead.ask(lambda lead: lead.publish(model, summary, data.skipped_file))


def load(run: ResolvedRun, source: ModelSource, objective: Objective) -> tuple[Engine, Any]:
    """Return the engine and the PEFT model in it."""
    config, ranks, reporter = run.config, run.ranks, run.reporter
    # Together: a node may have in its cache what another downloads for longer than NCCL waits.
    directory = ranks.together(lambda: fetch(config, source, reporter, weights=True))
    initial = ranks.together(lambda: fetch_initial(config, source.initial))
    reporter.begin(Phase.LOAD)
    prepare_deepspeed(ranks)
    with sharded_loading(run):
        placement = placement_on(ranks.device, run.resolved.zero_stage)
        adapted = load_adapted(config.recipe, directory, initial, placement)
        reporter.adapted(adapted.coverage)
        if ranks.is_lead:
            words = tokenizer_directory(config, source, directory)
            reporter.advised(advice(directory, words, config.recipe.lora.targets))
        ranks.wait()  # disks differ, and what follows broadcasts over NCCL
        engine = Engine(adapted.model, objective, run)
    return engine, adapted.model


def train(
    run: ResolvedRun, engine: Engine, data: Prepared, feed: Feed, lead: Led[Lead]
) -> TrainingSummary:
    """Do the recipe's steps that no checkpoint has done; the engine then holds what to publish."""
    run.stop.postpone()
    return Loop(run, engine, data, feed, lead).run()
