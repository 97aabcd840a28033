"""The learning rate of a step."""

from __future__ import annotations

import math

from finetune_contract.recipe import Schedule, TrainingRecipe


def learning_rate(recipe: TrainingRecipe, step: int, steps: int) -> float:
    """Return the rate of step `step`, counted from 0, of `steps`.

    Warm-up rises linearly over ceil(warmupRatio * steps) steps and never begins at 0, so that no
    step is spent on nothing. What is left falls from the full rate towards 0, which would be
    reached one step after the last.
    """
    warmup = math.ceil(recipe.warmup_ratio * steps)
    if step < warmup:
        return recipe.learning_rate * (step + 1) / (warmup + 1)
    done = (step - warmup) / max(1, steps - warmup)
    match recipe.schedule:
        case Schedule.CONSTANT:
            factor = 1.0
        case Schedule.LINEAR:
            factor = 1.0 - done
        case Schedule.COSINE:
            factor = 0.5 * (1.0 + math.cos(math.pi * done))
    return recipe.learning_rate * factor
