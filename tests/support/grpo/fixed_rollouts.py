"""Completions, advantages and old log-probabilities that stand from the start, and plain steps.

The steps are written down as simply as can be: rows padded side by side, the model's own forward
pass and attention, all logits, and the arithmetic of `grpo_oracle` with its gradients by hand.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from finetune_contract.grpo import GrpoRecipe
from finetune_contract.runconfig import RunConfig
from support.grpo.oracle import Completion, loss
from support.trainer.oracle import Expected, adapted_model, optimizer_of

GROUP, GROUPS, BUFFERS, ITERATIONS = 4, 4, 2, 2
PROMPTS = (7, 1, 30, 12)  # tokens, of a buffer's groups
LENGTHS = (5, 1, 17, 9)  # of a group's completions
VOCABULARY = (3, 250)  # of the tiny models' byte tokenizer, special tokens left out
APART = {"GSPO": 2e-3}  # standard deviation of log-probabilities then from those at the start
FAR = 0.3  # the same, of the other losses and of the reference


@dataclass(frozen=True)
class Fixed:
    """A completion of a group, and what its loss is made of; not `kept`, it is left out."""

    group: int
    prompt: list[int]
    tokens: list[int]
    then: list[float]
    reference: list[float]
    advantage: float
    kept: bool


Buffer = list[Fixed]


def draw(config: RunConfig) -> list[Buffer]:
    """Return buffers of completions; their old log-probabilities are near the first model's."""
    assert config.recipe.grpo is not None
    width = APART.get(config.recipe.grpo.loss, FAR)
    numbers = np.random.default_rng(5)
    model = adapted_model(config)

    def near(values: list[float], width: float) -> list[float]:
        moved: list[float] = (np.array(values) + numbers.normal(0, width, len(values))).tolist()
        return moved

    buffers = []
    for number in range(BUFFERS):
        bare = _completions(numbers, number)
        scored, _ = log_probs(model, bare, config.recipe.grpo.sampling.temperature)
        now = [values.tolist() for values in scored]
        buffers.append(
            [
                replace(c, then=near(values, width), reference=near(values, FAR))
                for c, values in zip(bare, now, strict=True)
            ]
        )
    return buffers


def _completions(numbers: np.random.Generator, number: int) -> Buffer:
    """Return a buffer's completions, without old log-probabilities.

    Some are left out, and of the last buffer a whole group, so that some ranks have nothing in a
    pass.
    """

    def tokens(length: int) -> list[int]:
        drawn: list[int] = numbers.integers(*VOCABULARY, length).tolist()
        return drawn

    prompts = [tokens(length) for length in PROMPTS]
    return [
        Fixed(
            group=index // GROUP,
            prompt=prompts[index // GROUP],
            tokens=tokens(LENGTHS[(index + number) % GROUP]),
            then=[],
            reference=[],
            advantage=float(numbers.normal()),
            kept=index % 7 != 3 and not (number == BUFFERS - 1 and index < GROUP),
        )
        for index in range(GROUP * GROUPS)
    ]


def write(buffers: Sequence[Buffer], path: Path) -> Path:
    """Write buffers as JSON; return the path."""
    path.write_text(json.dumps([[asdict(c) for c in buffer] for buffer in buffers]))
    return path


def read(path: Path) -> list[Buffer]:
    """Return the buffers of `write`."""
    return [[Fixed(**c) for c in buffer] for buffer in json.loads(path.read_text())]


@dataclass(frozen=True)
class Steps(Expected):
    """With the entropy of the policy, summed over a step's learned tokens."""

    entropies: list[float]


def log_probs(model: Any, buffer: Buffer, temperature: float) -> tuple[list[Any], float]:
    """Return the log-probabilities of each completion's tokens, and the sum of all entropies.

    All rows are padded side by side.
    """
    import torch

    rows = [c.prompt + c.tokens for c in buffer]
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.int64)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row)
    table = (model(input_ids=ids).logits / temperature).log_softmax(-1)
    entropies = -(table.exp() * table).sum(-1).detach()
    found, entropy = [], 0.0
    for index, c in enumerate(buffer):
        at = torch.arange(len(c.prompt), len(c.prompt) + len(c.tokens))
        found.append(table[index, at - 1, ids[index, at]])
        entropy += float(entropies[index, at - 1].sum())
    return found, entropy


def plain_steps(config: RunConfig, buffers: Sequence[Buffer]) -> Steps:
    """Train on the CPU in fp32, ITERATIONS steps on each buffer."""
    import torch

    training, grpo = config.recipe.training, config.recipe.grpo
    assert grpo is not None
    model = adapted_model(config)
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    optimizer = optimizer_of(training, list(parameters.values()))
    losses, norms, entropies = [], [], []
    for buffer in buffers:
        kept = [c for c in buffer if c.kept]
        for _ in range(ITERATIONS):
            now, entropy = log_probs(model, kept, grpo.sampling.temperature)
            value, slopes = _loss(grpo, kept, [t.tolist() for t in now])
            optimizer.zero_grad()
            torch.cat(now).backward(torch.tensor([s for own in slopes for s in own]))
            limit = training.max_grad_norm or math.inf
            norms.append(float(torch.nn.utils.clip_grad_norm_(parameters.values(), limit)))
            optimizer.step()
            losses.append(value)
            entropies.append(entropy)
    return Steps(losses, norms, {n: p.detach() for n, p in parameters.items()}, entropies)


def _loss(
    grpo: GrpoRecipe, kept: Sequence[Fixed], now: Sequence[list[float]]
) -> tuple[float, list[list[float]]]:
    batch = [
        Completion(values, c.then, c.reference, c.advantage)
        for c, values in zip(kept, now, strict=True)
    ]
    return loss(grpo.loss, *grpo.clips, grpo.beta, grpo.sampling.max_tokens, batch)
