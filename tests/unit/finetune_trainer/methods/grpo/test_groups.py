"""A prompt shared by its completions gives each what a prompt of its own would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from finetune_contract.recipe import LoraRecipe, LoraTarget, Precision
from finetune_trainer.adapter.lora import adapt
from finetune_trainer.adapter.roles import map_roles
from finetune_trainer.methods.grpo.groups import Group, group_batch
from finetune_trainer.model.base import load_model
from finetune_trainer.step.log_probs import LogProbModel, score
from support.models.tiny_models import write_tiny
from support.models.tolerance import TINY_MODEL, assert_close

CPU = torch.device("cpu")
# Prompt, completions: of unlike lengths, of one token, alone, and longer than gemma's window.
SHAPES = ((7, (3, 9, 1)), (1, (4, 4)), (5, (6,)), (40, (2, 33, 17)))
MODELS = ("llama", "qwen3-moe", "deepseek-v3", "gemma2", "phi3")


def groups() -> list[Group]:
    draw = np.random.default_rng(0)

    def tokens(length: int) -> Any:
        return draw.integers(3, 250, length).astype(np.int32)

    return [Group(tokens(p), tuple(tokens(c) for c in lengths)) for p, lengths in SHAPES]


def scorer(name: str, directory: Path, *, checkpointing: bool) -> LogProbModel:
    write_tiny(name, directory)
    base = load_model(directory, Precision.FP32)
    recipe = LoraRecipe(rank=4, targets=(LoraTarget.ATTENTION,))
    model: Any = adapt(base, recipe, map_roles(base), seed=0).model
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if "lora_B" in parameter_name:
                parameter.normal_(0, 0.05)
    return LogProbModel(model.train(), checkpointing=checkpointing)


def computed(made: LogProbModel, *, packed: bool) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return log-probabilities, and the gradients of a loss that weighs every token unlike."""
    batch = group_batch(groups(), CPU, packed=packed)
    log_probs = score(made, batch)
    made.zero_grad()
    (log_probs * torch.linspace(-1, 2, len(log_probs))).sum().backward()
    found = {n: p.grad.clone() for n, p in made.named_parameters() if p.grad is not None}
    return log_probs.detach(), found


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_log_probs_and_gradients_are_those_of_prompts_of_their_own(
    name: str, checkpointing: bool, tmp_path: Path
) -> None:
    made = scorer(name, tmp_path, checkpointing=checkpointing)
    shared, gradients = computed(made, packed=True)
    alone, expected = computed(made, packed=False)
    assert len(shared) == sum(sum(lengths) for _, lengths in SHAPES)
    assert_close(shared, alone, terms=TINY_MODEL)
    assert gradients.keys() == expected.keys() != set()
    for parameter, gradient in gradients.items():
        assert (gradient - expected[parameter]).norm() <= 1e-4 * expected[parameter].norm()
        assert expected[parameter].norm() > 0


def test_the_prompt_is_computed_once() -> None:
    shared = group_batch(groups(), CPU, packed=True)
    assert shared.input_ids.numel() == sum(p + sum(lengths) for p, lengths in SHAPES)


def test_learned_tokens_stand_in_one_order() -> None:
    expected = np.concatenate([c for group in groups() for c in group.completions])
    for packed in (True, False):
        assert group_batch(groups(), CPU, packed=packed).targets.tolist() == expected.tolist()
