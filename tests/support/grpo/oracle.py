"""GRPO's arithmetic once more, in plain Python floats, completion by completion, from the papers.

Gradients are derived by hand, so that nothing of torch stands on both sides of a comparison.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

EPSILON = 1e-4
ALIKE = 1e-9  # sums of roots are not exact
Number = float | Fraction


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


def totals(
    table: Sequence[Sequence[float | None]], punished: Sequence[float], rules: Rules
) -> list[Fraction | None]:
    """Return the totals of one group, exactly: what is equal in truth is equal here."""
    found: list[Fraction | None] = []
    for row, extra in zip(table, punished, strict=True):
        present = [(s, w) for s, w in zip(row, rules.weights, strict=True) if s is not None]
        weight = sum(Fraction(w) for _, w in present)
        summed = sum(Fraction(s) * Fraction(w) for s, w in present)
        whole = sum(map(Fraction, rules.weights))
        found.append(summed / weight * whole + Fraction(extra) if weight else None)
    return compliant(found, table, rules)


def gate(row: Sequence[float | None], rules: Rules) -> str:
    """Tell what a completion's gates say of it."""
    asked = [(s, g) for s, g in zip(row, rules.gates, strict=True) if g is not None]
    if any(score is not None and score < limit for score, limit in asked):
        return "missed"
    return "unknown" if any(score is None for score, _ in asked) else "passed"


def compliant(
    values: Sequence[Fraction | None], table: Sequence[Sequence[float | None]], rules: Rules
) -> list[Fraction | None]:
    """Return a group's values after the gates: who misses one has 0, or the worst of who passes."""
    said = [gate(row, rules) for row in table]
    passing = [v for v, s in zip(values, said, strict=True) if s == "passed" and v is not None]
    of = {"missed": min([Fraction(0), *passing]), "unknown": None}
    return [of.get(s, v) for v, s in zip(values, said, strict=True)]


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


def against_group(values: Sequence[Number | None], by: float | None = None) -> list[float | None]:
    """Return a group's values less their mean, over `by`, else over their deviation."""
    there = [v for v in values if v is not None]
    if not there or all(math.isclose(v, there[0], rel_tol=ALIKE, abs_tol=ALIKE) for v in there):
        return [None if v is None else 0.0 for v in values]
    mean = math.fsum(there) / len(there)
    if by is None:
        by = spread([float(v) for v in there]) + EPSILON
    return [None if v is None else (float(v) - mean) / by for v in values]


def groups_of(values: Sequence[Any], rules: Rules) -> list[Any]:
    """Return the values group by group."""
    return [values[i : i + rules.size] for i in range(0, len(values), rules.size)]


def advantages(
    table: Sequence[Sequence[float | None]], lengths: Sequence[int], rules: Rules
) -> list[float | None]:
    """Return each completion's advantage; None where it has no total."""
    punished = [punishment(length, rules) for length in lengths]
    groups = list(zip(groups_of(table, rules), groups_of(punished, rules), strict=True))
    whole = [totals(group, extra, rules) for group, extra in groups]
    if rules.aggregate == "GDPO":
        summed = [
            _normalised_then_summed(group, extra, total, rules)
            for (group, extra), total in zip(groups, whole, strict=True)
        ]
        # 2601.05242 divides by the deviation over the whole batch, and takes its mean off, which is
        # 0 as each group's is; where scores are missing only the group's is taken off.
        by = spread([v for group in summed for v in group if v is not None]) + EPSILON
        return [value for group in summed for value in against_group(group, by)]
    everything = spread([float(t) for group in whole for t in group if t is not None])
    of = {"Group": None, "Batch": everything + EPSILON, "None": 1.0}[rules.scale]
    return [value for group in whole for value in against_group(group, of)]


def _normalised_then_summed(
    table: Sequence[Sequence[float | None]],
    punished: Sequence[float],
    whole: Sequence[Fraction | None],
    rules: Rules,
) -> list[float | None]:
    """Return a group's weighted sums of rewards that are normalised one by one."""
    columns = [list(column) for column in zip(*table, strict=True)]
    weights = list(rules.weights)
    if rules.punish:
        columns.append(list(punished))
        weights.append(1.0)
    normal = []
    for column in columns:
        exact = [
            None if t is None or v is None else Fraction(v)
            for v, t in zip(column, whole, strict=True)
        ]
        normal.append(against_group(compliant(exact, table, rules)))
    sums: list[float | None] = []
    for row in zip(*normal, strict=True):
        present = [(v, w) for v, w in zip(row, weights, strict=True) if v is not None]
        weight = sum(w for _, w in present)
        sums.append(sum(v * w for v, w in present) / weight * sum(weights) if weight else None)
    return sums


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
