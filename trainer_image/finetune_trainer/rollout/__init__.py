"""Draws completions of prompts from the model as it stands.

One interface (`base`), two engines: `builtin` generates with the training model, `openai` asks a
server that is given each step's adapter. Which tokens the built-in one draws depends on the request
and the weights alone (`sampling`), never on ranks, batches or ZeRO stage.
"""

from __future__ import annotations

from typing import Any

from finetune_contract import layout
from finetune_contract.grpo import Sampling
from finetune_trainer.rollout.base import RolloutEngine
from finetune_trainer.rollout.builtin import BuiltinEngine
from finetune_trainer.rollout.openai import OpenAIEngine
from finetune_trainer.run import ResolvedRun
from finetune_trainer.step.engine import Engine


def rollout_engine(
    run: ResolvedRun, sampling: Sampling, engine: Engine, model: Any, tokenizer: Any
) -> RolloutEngine:
    """Return the engine that the layout asks for; `model` is the PEFT model in `engine`."""
    asked = (run.config.layout.rollout or layout.Rollout()).engine
    made = OpenAIEngine if asked is layout.RolloutEngine.OPENAI else BuiltinEngine
    return made(run, sampling, engine, model, tokenizer)
