"""The course of a run, for people: rank 0's records of steps and evaluations."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StepRecord:
    """One optimizer step. `tokens` counts all tokens of the step on all ranks, `seconds` its
    wall time; `grad_norm` is before clipping."""

    step: int  # counted from 1
    loss: float
    grad_norm: float
    learning_rate: float
    tokens: int
    supervised_tokens: int
    seconds: float
