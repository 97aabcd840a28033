"""Draws completions of prompts from the model as it stands.

One interface (`base`), two engines: `builtin` generates with the training model, `openai` asks a
server that is given each step's adapter. Which tokens the built-in one draws depends on the request
and the weights alone (`sampling`), never on ranks, batches or ZeRO stage.
"""

from __future__ import annotations

from typing import Any

from finetune_contract import layout
from finetune_contract.resolved import MemoryEstimate
from finetune_contract.runconfig import RunConfig
from finetune_trainer.course.progress import Reporter
from finetune_trainer.process.distributed import Ranks
from finetune_trainer.rollout.base import RolloutEngine
from finetune_trainer.rollout.budget import free_bytes
from finetune_trainer.rollout.builtin import BuiltinEngine
from finetune_trainer.rollout.openai import OpenAIEngine
from finetune_trainer.step.engine import Engine


def rollout_engine(
    config: RunConfig,
    engine: Engine,
    model: Any,
    tokenizer: Any,
    ranks: Ranks,
    memory: MemoryEstimate,
    reporter: Reporter,
) -> RolloutEngine:
    """Return the engine that the layout asks for; `model` is the PEFT model in `engine`."""
    if (config.layout.rollout or layout.Rollout()).engine is layout.RolloutEngine.OPENAI:
        return OpenAIEngine(config, engine, model, tokenizer, ranks, reporter)
    return BuiltinEngine(config, engine, model, tokenizer, ranks, free_bytes(memory))
