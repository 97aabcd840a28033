"""The DeepSpeed engine: one optimizer step whose loss is the mean over all its learned tokens.

DeepSpeed averages gradients over ranks and over micro-batches, as if each held equally many
tokens. The loss handed to it is therefore the sum over tokens, divided by the tokens of the whole
step and multiplied by ranks x micro-batches, so that layout never changes the numbers.

Its own mixed precision stays off: the base is frozen, in whatever format it was loaded, and the
adapters are fp32 all through, so the master weights are the weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import deepspeed
import torch
from deepspeed.ops import __compatible_ops__
from transformers.integrations import HfDeepSpeedConfig

from finetune_contract.layout import Layout, ZeroStage
from finetune_contract.reasons import Reason
from finetune_contract.recipe import Optimizer, Precision, TrainingRecipe
from finetune_contract.runconfig import RunConfig
from finetune_trainer.batch import MicroBatch, token_log_probs
from finetune_trainer.distributed import Ranks
from finetune_trainer.errors import Failure
from finetune_trainer.methods import METHODS

BUCKET_ELEMENTS = 50_000_000


@dataclass(frozen=True)
class StepOutcome:
    """A step's mean loss per learned token and its gradient norm before clipping."""

    loss: float
    grad_norm: float


def zero_stage(layout: Layout) -> ZeroStage:
    """Return the stage in effect: one process has nobody to shard with; plain steps cost less."""
    assert layout.zero_stage is not None, "Auto is resolved before"
    return ZeroStage.DDP if layout.world_size == 1 else layout.zero_stage


def deepspeed_config(config: RunConfig) -> dict[str, Any]:
    """Return DeepSpeed's configuration for a layout."""
    training, layout = config.recipe.training, config.layout
    stage = zero_stage(layout)
    return {
        "train_micro_batch_size_per_gpu": config.micro_batch_size,
        "gradient_accumulation_steps": config.accumulation_steps,
        "gradient_clipping": 0.0 if stage is ZeroStage.DDP else training.max_grad_norm,
        "zero_optimization": {
            "stage": int(stage),
            "overlap_comm": False,
            "reduce_bucket_size": BUCKET_ELEMENTS,
            "allgather_bucket_size": BUCKET_ELEMENTS,
        },
        # torch's own optimizers need no compiler on the machine.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 2**31,
    }


def prepare_deepspeed(ranks: Ranks) -> None:
    """Make DeepSpeed use the process group that exists."""
    __compatible_ops__["deepspeed_shm_comm"] = False  # would be compiled at start
    backend = "nccl" if ranks.device.type == "cuda" else "gloo"
    deepspeed.init_distributed(backend, auto_mpi_discovery=False, verbose=False)


@contextmanager
def sharded_loading(config: RunConfig) -> Iterator[None]:
    """Let transformers load parameters straight into ZeRO-3 shards, where that is the stage."""
    if zero_stage(config.layout) is ZeroStage.PARAMETERS:
        # Here alone `bf16` stands for the number format of the shards.
        bf16 = {"enabled": config.recipe.training.precision is Precision.BF16}
        alive = HfDeepSpeedConfig({**deepspeed_config(config), "bf16": bf16})
        yield
        del alive  # transformers holds it weakly
    else:
        yield


class Engine:
    """Steps the trainable parameters of a model."""

    def __init__(self, model: Any, config: RunConfig, ranks: Ranks) -> None:
        self._ranks = ranks
        self._training = config.recipe.training
        self._loss_sum = METHODS[config.recipe.method]
        self._passes = config.accumulation_steps
        self._trainable = [p for p in model.parameters() if p.requires_grad]
        self._clips_itself = zero_stage(config.layout) is ZeroStage.DDP
        self._engine, self._optimizer, _, _ = deepspeed.initialize(
            model=model,
            optimizer=_optimizer(self._training, self._trainable),
            config=deepspeed_config(config),
            dist_init_required=False,
        )
        self._engine.train()

    def step(
        self,
        batches: Sequence[MicroBatch],
        tokens: int,
        rate: float,
        stops: Callable[[], bool],
    ) -> StepOutcome | None:
        """Do one optimizer step over this rank's micro-batches.

        `tokens` are the learned tokens of the step on all ranks. `stops` is asked before each
        micro-batch and must answer all ranks alike: once true, the step is left undone and None
        returned. Raises NonFiniteLoss; a loss that is not finite is found before the weights are
        touched.
        """
        assert len(batches) == self._passes
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        scale = self._ranks.world * self._passes / tokens
        summed, norm, mean = 0.0, math.nan, math.nan
        for index, batch in enumerate(batches, start=1):
            if stops():
                return None
            loss = self._loss_sum(token_log_probs(self._engine, batch), batch.weights)
            summed += loss.item()
            if index == self._passes:
                mean = _finite(self._ranks.sum(summed) / tokens, "loss")
            self._engine.backward(loss * scale)
            if index == self._passes and self._clips_itself:
                norm = self._clip()
            self._engine.step()
        if not self._clips_itself:
            norm = float(self._engine.get_global_grad_norm())
        return StepOutcome(mean, _finite(norm, "gradient norm"))

    def _clip(self) -> float:
        limit = self._training.max_grad_norm or math.inf
        return torch.nn.utils.clip_grad_norm_(self._trainable, limit).item()

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Hold the whole trainable parameters on every rank; all ranks must enter."""
        with deepspeed.zero.GatheredParameters(self._trainable):
            yield


def _optimizer(recipe: TrainingRecipe, parameters: list[Any]) -> torch.optim.Optimizer:
    kind = torch.optim.AdamW if recipe.optimizer is Optimizer.ADAMW else torch.optim.SGD
    return kind(parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)


def _finite(value: float, what: str) -> float:
    if not math.isfinite(value):
        raise Failure(Reason.NON_FINITE_LOSS, f"the {what} is {value}")
    return value
