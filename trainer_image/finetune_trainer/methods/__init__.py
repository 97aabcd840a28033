"""What is optimised: one small pure file per method, and the registry that names them.

A method turns the log-probabilities of learned tokens into a loss summed over tokens; the engine
divides by the number of learned tokens of the whole optimizer step.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from finetune_contract.recipe import MethodType
from finetune_trainer.methods import sft

LossSum = Callable[[Tensor, Tensor], Tensor]

METHODS: dict[MethodType, LossSum] = {MethodType.SFT: sft.loss_sum}
