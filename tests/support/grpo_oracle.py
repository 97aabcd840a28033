"""GRPO's arithmetic once more, in plain Python floats, completion by completion, from the papers.

Gradients are derived by hand, so that nothing of torch stands on both sides of a comparison.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

EPSILON = 1e-4
NONE = None  # a reward that abstained or failed


@dataclass(frozen=True)
class Rules:
    """What of a recipe decides advantages."""

    size: int
    weights: Sequence[float]
    gates: Sequence[float | None]
    scale: str = "Group"
    aggregate: str = "WeightedSum"
    max_tokens: int = 64
    punish: int = 0


def total(scores: Sequence[float | None], rules: Rules) -> float | None:
    """Return a completion's total before the punishment of its length."""
    gated = [(s, g) for s, g in zip(scores, rules.gates, strict=True) if g is not None]
    if any(score is not None and score < gate for score, gate in gated):
        return 0.0
    if any(score is None for score, _ in gated):
        return None
    present = [(s, w) for s, w in zip(scores, rules.weights, strict=True) if s is not None]
    weight = sum(w for _, w in present)
    if weight == 0:
        return None
    return sum(s * w for s, w in present) / weight * sum(rules.weights)


def punishment(length: int, rules: Rules) -> float:
    """Return equation 13 of 2503.14476, with L_max the limit and L_cache the punished tokens."""
    if rules.punish == 0 or length <= rules.max_tokens - rules.punish:
        return 0.0
    return max(-1.0, ((rules.max_tokens - rules.punish) - length) / rules.punish)


def spread(values: Sequence[float]) -> float:
    """Return the unbiased standard deviation; 0 for fewer than two values."""
    if len(values) < 2:
        return 0.0
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))


def normalised(
    values: Sequence[float | None], deviation: float | None = None
) -> list[float | None]:
    """Return values less the mean of those there, over their spread or the one given."""
    there = [v for v in values if v is not None]
    if not there:
        return [None] * len(values)
    mean = math.fsum(there) / len(there)
    by = (spread(there) if deviation is None else deviation) + EPSILON
    alike = max(there) == min(there)
    return [None if v is None else 0.0 if alike else (v - mean) / by for v in values]


def advantages(
    table: Sequence[Sequence[float | None]], lengths: Sequence[int], rules: Rules
) -> list[float]:
    """Return each completion's advantage; 0 where it has no total."""
    punished = [punishment(length, rules) for length in lengths]
    totals = [total(row, rules) for row in table]
    totals = [None if t is None else t + p for t, p in zip(totals, punished, strict=True)]
    if rules.aggregate == "GDPO":
        return _gdpo(table, totals, punished, rules)
    everything = spread([t for t in totals if t is not None])
    found: list[float] = []
    for start in range(0, len(totals), rules.size):
        group = totals[start : start + rules.size]
        by = {"Group": None, "Batch": everything, "None": 1.0 - EPSILON}[rules.scale]
        found += [0.0 if v is None else v for v in normalised(group, by)]
    return found


def _gdpo(
    table: Sequence[Sequence[float | None]],
    totals: Sequence[float | None],
    punished: Sequence[float],
    rules: Rules,
) -> list[float]:
    rows = []
    for row, whole, extra in zip(table, totals, punished, strict=True):
        missed = any(
            gate is not None and score is not None and score < gate
            for score, gate in zip(row, rules.gates, strict=True)
        )
        row = [0.0 if missed else score for score in row] + ([extra] if rules.punish else [])
        rows.append([None] * len(row) if whole is None else row)
    weights = [*rules.weights, *([1.0] if rules.punish else [])]
    columns = []
    for column in zip(*rows, strict=True):
        columns.append(
            [
                value
                for start in range(0, len(column), rules.size)
                for value in normalised(column[start : start + rules.size])
            ]
        )
    combined: list[float | None] = []
    for row in zip(*columns, strict=True):
        present = [(v, w) for v, w in zip(row, weights, strict=True) if v is not None]
        weight = sum(w for _, w in present)
        combined.append(
            sum(v * w for v, w in present) / weight * sum(weights) if weight > 0 else None
        )
    return [0.0 if v is None else v for v in normalised(combined)]


@dataclass(frozen=True)
class Completion:
    """One completion's tokens: log-probabilities now, when drawn, and under the reference."""

    now: Sequence[float]
    then: Sequence[float]
    reference: Sequence[float]
    advantage: float


def loss(
    kind: str, low: float, high: float, beta: float, limit: int, batch: Sequence[Completion]
) -> tuple[float, list[list[float]]]:
    """Return the step's loss, and its gradient to every token's log-probability now."""
    tokens = sum(len(c.now) for c in batch)
    value, gradients = 0.0, []
    for c in batch:
        length = len(c.now)
        share = {
            "GRPO": 1 / (length * len(batch)),
            "GSPO": 1 / (length * len(batch)),
            "DrGRPO": 1 / (limit * len(batch)),
            "DAPO": 1 / tokens,
            "CISPO": 1 / tokens,
        }[kind]
        whole = math.exp(sum(n - t for n, t in zip(c.now, c.then, strict=True)) / length)
        own = []
        for now, then, reference in zip(c.now, c.then, c.reference, strict=True):
            ratio = whole if kind == "GSPO" else math.exp(now - then)
            if kind == "CISPO":
                weight = min(ratio, high)
                value -= share * weight * c.advantage * now
                slope = -weight * c.advantage
            else:
                clipped = min(max(ratio, 1 - low), 1 + high)
                plain, cut = ratio * c.advantage, clipped * c.advantage
                value -= share * min(plain, cut)
                slope = -plain if plain <= cut else 0.0
            value += share * beta * (math.exp(reference - now) - (reference - now) - 1)
            own.append(share * (slope + beta * (1 - math.exp(reference - now))))
        gradients.append(own)
    return value, gradients
