"""One run on one screen: start, check the data, load, train, publish."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from finetune_contract.artifact import TrainingSummary
from finetune_contract.progress import Phase
from finetune_contract.resolved import MemoryEstimate
from finetune_contract.result import PublishedArtifact
from finetune_contract.runconfig import RunConfig
from finetune_rewards.panel import Panel
from finetune_trainer.adapter.initial import fetch_initial
from finetune_trainer.adapter.load import load_adapted, placement_on
from finetune_trainer.course.progress import Reporter
from finetune_trainer.fit.resolve import resolve
from finetune_trainer.lead import Lead, fetch
from finetune_trainer.loop import Loop
from finetune_trainer.methods.grpo.feed import GrpoFeed
from finetune_trainer.methods.grpo.prompt_order import PromptPlan
from finetune_trainer.methods.grpo.rewards.panel import identities, opened_panel
from finetune_trainer.methods.grpo.rewards.reward_model import reward_models
from finetune_trainer.methods.grpo.rollouts import Collector
from finetune_trainer.methods.sft.feed import SupervisedFeed
from finetune_trainer.model.tokenizer import load_tokenizer
from finetune_trainer.prepare import Prepared, prepare
from finetune_trainer.process.distributed import Ranks
from finetune_trainer.process.stopping import Stop
from finetune_trainer.rollout import rollout_engine
from finetune_trainer.step.engine import Engine
from finetune_trainer.step.feed import Feed
from finetune_trainer.step.sharding import prepare_deepspeed, sharded_loading, zero_stage
from finetune_trainer.store.sources import ModelSource

log = logging.getLogger(__name__)


def train_and_publish(
    config: RunConfig, ranks: Ranks, reporter: Reporter, stop: Stop
) -> PublishedArtifact:
    """Return the published artifact, the same on every rank."""
    judges = reward_models(config, ranks)
    with opened_panel(config, judges, ranks) as panel:
        rewards = identities(panel, ranks)
        lead = Lead(config, reporter)
        start = ranks.lead(lambda: lead.start(rewards))
        if start.finished is not None:
            log.info("latest.json names an artifact of the same provenance: nothing to train")
            return start.finished
        directory = ranks.together(lambda: fetch(config, start.model, reporter, weights=False))
        config, plan = resolve(config, start.model, directory, ranks, judges.bytes)
        reporter.planned(plan)
        data = prepare(config, start.files, directory, ranks, reporter, start.eval_files)
        ranks.lead(lead.claim)  # once the inputs are good: a run that has the output ends by it
        engine, model = load(config, start.model, ranks, reporter)
        feed = make_feed(
            config, engine, model, data, directory, panel, plan.memory, ranks, reporter
        )
        with lead.telling():
            summary = train(config, engine, data, feed, lead, ranks, reporter, stop)
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


def make_feed(
    config: RunConfig,
    engine: Engine,
    model: Any,
    data: Prepared,
    directory: Path,
    panel: Panel | None,
    memory: MemoryEstimate,
    ranks: Ranks,
    reporter: Reporter,
) -> Feed:
    """Return the method's batches; `directory` holds the model's tokenizer."""
    grpo, prompts = config.recipe.grpo, data.prompts
    if grpo is None or prompts is None or panel is None:
        return SupervisedFeed(config, data.train, ranks)
    tokenizer = load_tokenizer(directory)
    drawer = rollout_engine(config, engine, model, tokenizer, ranks, memory, reporter)
    plan = PromptPlan.of(config.recipe, data.train)
    collector = Collector(grpo, plan, prompts, tokenizer, drawer, panel, ranks, reporter)
    return GrpoFeed(config, prompts, plan, collector, engine, ranks, reporter)


def train(
    config: RunConfig,
    engine: Engine,
    data: Prepared,
    feed: Feed,
    lead: Lead,
    ranks: Ranks,
    reporter: Reporter,
    stop: Stop,
) -> TrainingSummary:
    """Do the recipe's steps that no checkpoint has done; the engine then holds what to publish."""
    stop.postpone()
    return Loop(config, engine, data, feed, lead, ranks, reporter, stop).run()
