"""FP16's loss scale falls and grows; a summed gradient that overflows is no step. No GPU needed."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from finetune_contract.layout import ZeroStage
from finetune_trainer.step.engine import GROWTH_STEPS, Engine, NonFinite


class Steps:
    """Stands for DeepSpeed's engine."""

    def __init__(self, norm: float) -> None:
        self.norm = norm
        self.done = 0

    def step(self) -> None:
        self.done += 1

    def get_global_grad_norm(self) -> float:
        return self.norm


def engine(*, scales: bool, stage: ZeroStage = ZeroStage.OPTIMIZER, norm: float = 1.0) -> Any:
    """Return an engine of two ranks with three micro-batches each, of which nothing is computed."""
    made: Any = object.__new__(Engine)
    made.stage = stage
    made._stats, made._reached = (), None
    made._scales, made._passes = scales, 3
    made.loss_scale, made.clean_steps = 1024.0 if scales else 1.0, 0
    made._ranks = SimpleNamespace(device=torch.device("cpu"))
    made._training = SimpleNamespace(max_grad_norm=1.0)
    made.optimizer = SimpleNamespace(param_groups=[{}])
    made.deepspeed = Steps(norm)
    made._norms = torch.tensor([[1.0, 2.0, 3.0], [4.0, 9.0, 6.0]])
    made._accumulate = lambda *_: True
    made._agreed = lambda: ([2.0, 1.0], None)
    made._discard = lambda: None
    return made


def step(made: Any) -> None:
    made.step([None] * 3, 4, 1e-3, lambda: False)


def test_the_scale_doubles_after_many_steps_without_an_overflow() -> None:
    made = engine(scales=True)
    made.clean_steps = GROWTH_STEPS - 2
    step(made)
    assert (made.loss_scale, made.clean_steps) == (1024.0, GROWTH_STEPS - 1)
    step(made)
    assert (made.loss_scale, made.clean_steps) == (2048.0, 0)
    step(made)
    assert (made.loss_scale, made.clean_steps) == (2048.0, 1)


def test_an_overflow_begins_the_count_again() -> None:
    made = engine(scales=True)
    made.clean_steps = GROWTH_STEPS - 1
    answers = iter([([2.0, 1.0], (0, 0)), ([2.0, 1.0], None)])
    made._agreed = lambda: next(answers)
    step(made)
    assert (made.loss_scale, made.clean_steps) == (512.0, 1)


def test_without_fp16_nothing_is_scaled() -> None:
    made = engine(scales=False)
    made.clean_steps = GROWTH_STEPS - 1
    step(made)
    assert made.loss_scale == 1.0


@pytest.mark.parametrize("norm", [math.inf, math.nan])
@pytest.mark.parametrize("stage", [ZeroStage.DDP, ZeroStage.PARAMETERS])
def test_a_sum_that_is_not_finite_is_no_step(stage: ZeroStage, norm: float) -> None:
    made = engine(scales=False, stage=stage, norm=norm)
    weight = torch.nn.Parameter(torch.zeros(2))
    weight.grad = torch.full((2,), norm)
    made.parameters = {"weight": weight}
    with pytest.raises(NonFinite, match="summed gradient of micro-batch 1 on rank 1") as caught:
        step(made)
    assert (caught.value.rank, caught.value.micro_batch) == (1, 1)  # the largest of them
    assert made.deepspeed.done == (0 if stage is ZeroStage.DDP else 1)  # ZeRO skips by itself
    assert made.clean_steps == 0
